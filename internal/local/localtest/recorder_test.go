package localtest_test

import (
	"fmt"
	"runtime"
	"testing"
)

// recorder is a test that keeps its failure for another test to look at.
type recorder struct {
	testing.TB

	message string
}

func (*recorder) Helper() {}

func (r *recorder) Fatalf(format string, args ...any) {
	r.message = fmt.Sprintf(format, args...)
	runtime.Goexit()
}
