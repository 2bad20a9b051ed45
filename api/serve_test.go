package api_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/process"
)

func TestSlowBodyIsRejected(t *testing.T) {
	t.Parallel()
	limits := process.DefaultLimits()
	limits.Read = 100 * time.Millisecond
	b := &bundle{addr: startWithin(t, limits, api.New(always(counter.Result{}), api.Options{}))}
	for _, target := range []string{increment, batch} {
		connection := b.dial(t)
		defer connection.Close()
		request := requestText(http.MethodPost, target, `{"op`, "Content-Type: application/json", "Transfer-Encoding: none")
		// requestText adds no Content-Length of its own if there is a Transfer-Encoding; 100 is more than the client sends.
		request = strings.Replace(request, "Transfer-Encoding: none", "Content-Length: 100", 1)
		_, err := io.WriteString(connection, request)
		require.NoError(t, err)

		a := readAnswer(t, connection, request)

		require.Equal(t, http.StatusBadRequest, a.StatusCode)
		require.Equal(t, "invalid_body", a.problem(t).Code)
		require.Contains(t, a.problem(t).Detail, "too slowly")
		_, err = connection.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF, "the server closes the connection")
	}
}

func TestIncompleteBodyIsRejected(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "warm", "41")
	connection := b.dial(t)
	defer connection.Close()
	request := "POST " + increment + " HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"by\":5}"
	_, err := io.WriteString(connection, request)
	require.NoError(t, err)
	require.NoError(t, connection.(*net.TCPConn).CloseWrite())

	a := readAnswer(t, connection, request)

	require.Equal(t, "invalid_body", a.problem(t).Code)
	require.Equal(t, unsynced("warm", 41, 1), b.get(t, "warm"))
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	connection := b.dial(t)
	defer connection.Close()
	answers := bufio.NewReader(connection)
	request := strings.Replace(requestText(http.MethodPost, increment, `{"by":2}`), "Connection: close\r\n", "", 1)

	_, err := io.WriteString(connection, strings.Repeat(request, 50)) // without waiting for answers
	require.NoError(t, err)

	for i := range int64(50) {
		require.Equal(t, unsynced("warm", 2*i+2, i+1), readAnswer(t, answers, request).value(t))
	}
}
