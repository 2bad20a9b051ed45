package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// results returns the results of a batch as text, one each.
func (b *bundle) results(t *testing.T, body string, headers ...string) []string {
	t.Helper()
	a := b.send(t, http.MethodPost, "/v1/batch", body, headers...)
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
	require.Equal(t, "application/json", a.Header.Get("Content-Type"))
	var answer struct {
		Results []json.RawMessage `json:"results"`
	}
	require.NoError(t, json.Unmarshal([]byte(a.text), &answer))
	texts := make([]string, len(answer.Results))
	for i, r := range answer.Results {
		texts[i] = string(r)
	}
	return texts
}

func TestBatchAnswersInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)

	got := b.results(t, operations(
		`{"op":"increment","key":"a","by":1}`, `{"op":"set","key":"b","value":7}`, `{"op":"delete","key":"c"}`,
		`{"op":"increment","key":"b"}`, `{"op":"delete","key":"b"}`, `{"value":-9223372036854775808,"key":"ü/\"","op":"set"}`,
	))

	require.Equal(t, []string{
		`{"key":"a","value":1,"version":1,"synced":false}`,
		`{"key":"b","value":7,"version":1,"synced":false}`,
		`{"key":"c","deleted":true,"synced":` + syncedOf(t, got[2]) + `}`,
		`{"key":"b","value":8,"version":2,"synced":false}`,
		`{"key":"b","deleted":true,"version":3,"synced":false}`,
		`{"key":"ü/\"","value":-9223372036854775808,"version":1,"synced":false}`,
	}, got)
}

// syncedOf reads whether a counter that never was is synced, which is not the api's to say.
func syncedOf(t *testing.T, result string) string {
	t.Helper()
	var r struct {
		Synced bool `json:"synced"`
	}
	require.NoError(t, json.Unmarshal([]byte(result), &r))
	text, err := json.Marshal(r.Synced)
	require.NoError(t, err)
	return string(text)
}

func TestBatchKeepsTheOrderOnOneKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	list := make([]string, 0, api.MaxOperations)
	for i := range api.MaxOperations / 2 {
		list = append(list, `{"op":"set","key":"a","value":`+decimal(int64(i)*10)+`}`, `{"op":"increment","key":"a","by":3}`)
	}

	got := b.results(t, operations(list...))

	require.Len(t, got, api.MaxOperations)
	for i, text := range got {
		want := is("a", int64(i/2*10+i%2*3), int64(i+1))
		var v value
		require.NoError(t, json.Unmarshal([]byte(text), &v))
		require.Equal(t, want, v, i)
	}
}

func TestBatchAppliesWhatIsValidAndNamesWhatIsNot(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "full", "9223372036854775807")

	got := b.results(t, operations(
		`{"op":"set","key":"a","value":1}`,
		`{"op":"set","key":"a\n","value":1}`,
		`{"op":"set","key":"a","value":1.5}`,
		`{"op":"multiply","key":"a"}`,
		`{"op":"increment","key":"full"}`,
		`{"op":"increment","key":"a"}`,
	))

	problems := map[int][3]string{
		1: {`null`, "invalid_key", "400"}, 2: {`"a"`, "invalid_body", "400"}, 3: {`"a"`, "invalid_body", "400"}, 4: {`"full"`, "overflow", "409"},
	}
	for i, want := range problems {
		require.True(t, strings.HasPrefix(got[i], `{"key":`+want[0]+`,"error":{"type":"/problems/`+want[1]+`","title":"`), got[i])
		require.Contains(t, got[i], `","status":`+want[2]+`,"detail":"`)
		require.True(t, strings.HasSuffix(got[i], `","code":"`+want[1]+`"}}`), got[i])
	}
	require.JSONEq(t, `{"key":"a","value":1,"version":1,"synced":false}`, got[0])
	require.JSONEq(t, `{"key":"a","value":2,"version":2,"synced":false}`, got[5])
	require.Equal(t, is("a", 2, 2), b.get(t, "a"))
}

func TestBatchOfWhichAllFailDifferentlyAnswersWithResults(t *testing.T) {
	t.Parallel()
	b := setup(t)

	got := b.results(t, operations(`{"op":"delete","key":""}`, `{"op":"set","key":"a"}`), "Prefer: return=minimal")

	require.Contains(t, got[0], `"code":"invalid_key"`)
	require.Contains(t, got[1], `"code":"invalid_body"`)
}

func TestMinimalBatchIsNoContentOnlyWhenAllSucceeded(t *testing.T) {
	t.Parallel()
	b := setup(t)

	a := b.send(t, http.MethodPost, "/v1/batch", operations(`{"op":"set","key":"a","value":1}`, `{"op":"delete","key":"b"}`),
		"Prefer: return=minimal")
	require.Equal(t, http.StatusNoContent, a.StatusCode)
	require.Equal(t, "return=minimal", a.Header.Get("Preference-Applied"))

	a = b.send(t, http.MethodPost, "/v1/batch", operations(`{"op":"set","key":"a","value":2}`, `{"op":"set","key":"b"}`),
		"Prefer: return=minimal")
	require.Equal(t, http.StatusOK, a.StatusCode)
	require.Empty(t, a.Header.Get("Preference-Applied"))
	require.Contains(t, a.text, `"code":"invalid_body"`)
	require.Equal(t, int64(2), *b.get(t, "a").Value)
}

func TestBatchShowsWhatIsNotKnown(t *testing.T) {
	t.Parallel()
	b := serve(t, always(counter.Result{Counter: counter.Counter{Value: 5, Version: 5}}), api.Options{})

	got := b.results(t, operations(`{"op":"increment","key":"a"}`, `{"op":"delete","key":"b"}`))

	require.Equal(t, []string{
		`{"key":"a","value":null,"version":null,"synced":false}`, `{"key":"b","deleted":true,"synced":false}`,
	}, got)
}
