package auth_test

import (
	"testing"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestMain(m *testing.M) { localtest.Main(m) }
