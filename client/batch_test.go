package client_test

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/afterwrite/afterwrite/client"
	"github.com/afterwrite/afterwrite/internal/local/localapi"
)

func TestBatchReturnsAResultForEachOperation(t *testing.T) {
	t.Parallel()
	c := setup(t, localapi.Options{}, client.Options{})
	results, err := c.Batch(t.Context(), []client.Operation{
		client.Add("a", 2), client.Put("b", 9_223_372_036_854_775_807), client.Add("b", 1), client.Add("a", -5), client.Remove("b"),
	})
	require.NoError(t, err)
	require.Equal(t, client.Counter{Key: "a", Value: 2, Version: 1, Known: true}, results[0].Counter)
	require.NoError(t, results[1].Err)
	require.True(t, client.IsCode(results[2].Err, client.CodeOverflow), results[2].Err)
	require.Equal(t, client.AppliedNo, applied(t, results[2].Err))
	require.Equal(t, client.Counter{Key: "a", Value: -3, Version: 2, Known: true}, results[3].Counter)
	require.Equal(t, client.Counter{Key: "b", Version: 2, Known: true, Deleted: true}, results[4].Counter)

	results, err = c.Batch(t.Context(), []client.Operation{client.Add("a", 1), client.Remove("b")}, client.Minimal())
	require.NoError(t, err)
	require.Equal(t, []client.Result{{Counter: client.Counter{Key: "a"}}, {Counter: client.Counter{Key: "b", Deleted: true}}}, results)

	_, err = c.Batch(t.Context(), []client.Operation{client.Put("m", 9_223_372_036_854_775_807)})
	require.NoError(t, err)
	_, err = c.Batch(t.Context(), []client.Operation{client.Add("m", 1)})
	require.True(t, client.IsCode(err, client.CodeOverflow), "all have failed: %v", err)
	_, err = c.Batch(t.Context(), nil)
	require.True(t, client.IsCode(err, client.CodeTooManyOperations))
	_, err = c.Batch(t.Context(), make([]client.Operation, client.MaxOperations+1))
	require.True(t, client.IsCode(err, client.CodeTooManyOperations))
}

func TestBatchThatIsRepeatedCountsOnce(t *testing.T) {
	t.Parallel()
	for _, f := range []fault{cutBefore, cutAfter, cutAnswer, busy, lost} {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			c := setup(t, localapi.Options{Wrap: faulty(f, f, f).wrap}, client.Options{})
			results, err := c.Batch(t.Context(), []client.Operation{client.Add("a", 1), client.Add("a", 1), client.Add("b", 1)})
			require.NoError(t, err)
			require.Equal(t, f == cutAfter || f == cutAnswer || f == lost, results[1].Replayed)
			require.EqualValues(t, 2, value(t, c, "a"))
			require.EqualValues(t, 1, value(t, c, "b"))
		})
	}
}

func TestOperationWithAnIDCountsOnce(t *testing.T) {
	t.Parallel()
	c := setup(t, localapi.Options{}, client.Options{})
	operation := client.Add("a", 5)
	operation.ID = "order 17"
	for i := range 3 {
		results, err := c.Batch(t.Context(), []client.Operation{operation})
		require.NoError(t, err)
		require.Equal(t, i > 0, results[0].Replayed)
	}
	got, err := c.Increment(t.Context(), "a", 5, client.IdempotencyKey("order 17"))
	require.NoError(t, err)
	require.True(t, got.Replayed)
	_, err = c.Increment(t.Context(), "a", 6, client.IdempotencyKey("order 17"))
	require.True(t, client.IsCode(err, client.CodeIdempotencyKeyReused), err)
	require.EqualValues(t, 5, value(t, c, "a"))
}

// The server's list of codes is in its OpenAPI document, and docs/api.md tells what each means for the write.
func TestEveryCodeOfTheServerSaysWhetherTheWriteWasApplied(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../api/openapi.yaml")
	require.NoError(t, err)
	var document struct {
		Components struct {
			Schemas struct {
				Problem struct {
					Properties struct {
						Code struct{ Enum []client.Code }
					}
				} `yaml:"Problem"` //nolint:tagliatelle // the document's name
			}
		}
	}
	require.NoError(t, yaml.Unmarshal(text, &document))
	codes := document.Components.Schemas.Problem.Properties.Code.Enum
	require.Greater(t, len(codes), 20)
	page, err := os.ReadFile("../docs/api.md")
	require.NoError(t, err)
	for _, code := range codes {
		known, applied := client.Meaning(code)
		require.True(t, known, "add %s to code.go", code)
		line := regexp.MustCompile("(?m)^\\|[^|]*`" + string(code) + "`.*$").FindString(string(page))
		require.NotEmpty(t, line, code)
		switch applied {
		case client.AppliedYes:
			require.Contains(t, line, "**applied**", code)
		case client.AppliedUnknown:
			require.Contains(t, line, "it may or may not be applied", code)
		case client.AppliedNo:
			require.NotContains(t, line, "may or may not", code)
			require.NotContains(t, line, "**applied**", code)
		}
	}
}

func TestReadReturnsACounterOrAnErrorForEachKey(t *testing.T) {
	t.Parallel()
	c := setup(t, localapi.Options{Wrap: faulty(none, cutBefore, busy).wrap}, client.Options{})
	_, err := c.Batch(t.Context(), []client.Operation{client.Put("a", 1), client.Put("b", 2)})
	require.NoError(t, err)
	results, err := c.Read(t.Context(), "b", "none", "a", "b")
	require.NoError(t, err)
	require.Len(t, results, 4)
	require.Equal(t, client.Counter{Key: "b", Value: 2, Version: 1, Known: true}, results[0].Counter)
	require.True(t, client.IsCode(results[1].Err, client.CodeNotFound), results[1].Err)
	require.Equal(t, client.AppliedNo, applied(t, results[1].Err))
	require.EqualValues(t, 1, results[2].Value)
	require.Equal(t, results[0], results[3])

	_, err = c.Read(t.Context())
	require.True(t, client.IsCode(err, client.CodeTooManyOperations))
	_, err = c.Read(t.Context(), "a", "\xff")
	require.True(t, client.IsCode(err, client.CodeInvalidKey))
}

func TestLargestBatchFitsIntoABody(t *testing.T) {
	t.Parallel()
	c := setup(t, localapi.Options{}, client.Options{})
	operations := make([]client.Operation, client.MaxOperations)
	for i := range operations {
		operations[i] = client.Add(fmt.Sprintf("%s%05d", strings.Repeat("<", 250), i), math.MinInt64).AtLeast(math.MinInt64).AtMost(-1)
	}
	results, err := c.Batch(t.Context(), operations)
	require.NoError(t, err)
	for i, result := range results {
		require.NoError(t, result.Err)
		require.Equal(t, operations[i].Key, result.Key)
	}
}
