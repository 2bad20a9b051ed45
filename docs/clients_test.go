package docs

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localapi"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestMain(m *testing.M) { localtest.Main(m, localapi.Leaks()...) }

// clientLanguages has the file name and the command for the programs of docs/clients.md. The command gets the path of the file.
var clientLanguages = map[string]struct {
	file    string
	command []string
}{
	"sh":     {"program.sh", []string{"sh", "-eu"}},
	"go":     {"main.go", []string{"go", "run"}},
	"python": {"program.py", []string{"python3"}},
	"js":     {"program.js", []string{"node"}},
}

// example is a program in a document, and what it prints.
var example = regexp.MustCompile("(?s)\n```(\\w+)\n([^`].*?)\n```\n\nIt prints:\n\n```text\n(.*?)\n```\n")

// TestProgramsForClientsPrintWhatTheDocumentSays runs each program with a server that works, and with one that answers every other
// request 503, so that the program has to repeat it.
func TestProgramsForClientsPrintWhatTheDocumentSays(t *testing.T) {
	t.Parallel()
	const address = "http://127.0.0.1:8080"
	programs := example.FindAllStringSubmatch(read(t, "docs/clients.md"), -1)
	require.Len(t, programs, len(clientLanguages))
	for _, program := range programs {
		language, source, want := program[1], program[2], program[3]
		require.Contains(t, clientLanguages, language)
		require.Contains(t, source, address)
		for name, wrap := range map[string]func(http.Handler) http.Handler{"works": nil, "is busy": busyEveryOther} {
			t.Run(language+" and a server that "+name, func(t *testing.T) {
				t.Parallel()
				url := localapi.Start(t, localapi.Options{Wrap: wrap})
				require.Equal(t, want, runProgram(t, language, strings.ReplaceAll(source, address, url), want))
			})
		}
	}
}

// busyEveryOther answers every other request 503. It asks for no pause, to keep the test short.
func busyEveryOther(api http.Handler) http.Handler {
	var n atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%2 == 0 {
			api.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(`{"type":"/problems/overloaded","title":"Overloaded","status":503,"code":"overloaded"}`))
	})
}

// runProgram returns what a program prints. A line that ends in "..." in want is cut there.
func runProgram(t *testing.T, language, source, want string) string {
	t.Helper()
	l := clientLanguages[language]
	file := filepath.Join(t.TempDir(), l.file)
	require.NoError(t, os.WriteFile(file, []byte(source+"\n"), 0o600))
	command := exec.CommandContext(t.Context(), l.command[0], append(l.command[1:len(l.command):len(l.command)], file)...)
	command.Dir = root // for Go: the program's imports are this module's
	var problems strings.Builder
	command.Stderr = &problems
	printed, err := command.Output()
	require.NoError(t, err, "%s%s\nIs %s installed? `deploy/setup.sh clients` does that.", printed, problems.String(), l.command[0])
	lines := strings.Split(strings.TrimSpace(string(printed)), "\n")
	for i, line := range strings.Split(want, "\n") {
		if begin, cut := strings.CutSuffix(line, "..."); cut && i < len(lines) && strings.HasPrefix(lines[i], begin) {
			lines[i] = line
		}
	}
	return strings.Join(lines, "\n")
}
