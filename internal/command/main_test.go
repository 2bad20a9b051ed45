package command

import (
	"os"
	"testing"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// programVariable makes the test binary the program itself: nothing has to be built, and -race watches the processes too.
const programVariable = "COMMAND_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programVariable) != "" {
		os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	localtest.Main(m)
}
