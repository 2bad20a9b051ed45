package api_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
)

func TestDecodeIncrementAcceptsTheWholeRange(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		`{"by":0}`: 0, `{"by":-0}`: 0, `{"by":9223372036854775807}`: math.MaxInt64, `{"by":-9223372036854775808}`: math.MinInt64,
		"{\t\"by\" :\r\n 1 }": 1, `{"\u0062\u0079":7}`: 7,
	} {
		op, err := api.DecodeIncrement(text)
		require.NoError(t, err, text)
		require.Equal(t, want, op.Amount)
		require.Nil(t, op.Condition)
	}
	op, err := api.DecodeIncrement(`{}`)
	require.NoError(t, err)
	require.Equal(t, int64(1), op.Amount)
	op, err = api.DecodeIncrement(`{"max":5}`)
	require.NoError(t, err)
	require.Equal(t, &counter.Condition{Min: math.MinInt64, Max: 5}, op.Condition)
}

// FuzzDecodeIncrement compares the decoder with encoding/json: an accepted body must be valid JSON with the same fields.
func FuzzDecodeIncrement(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"by":5}`, `{"by":-9223372036854775808}`, `{"by":9223372036854775808}`, `{"by":1.0}`, `{"by":1e2}`, `{"by":null}`,
		`{"by":5,"by":5}`, `{"by":5}1`, `{"\u0062y":5}`, "{\"b\xff\":5}", `{"BY":5}`, ``, ` `, `null`, `{"by":"5"}`, `{"by":05}`,
		`{"by":-1,"min":0}`, `{"max":7,"min":-7}`, `{"max":1,"min":2}`, `{"min":null}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		op, err := api.DecodeIncrement(text)
		if err != nil {
			requireClientError(t, err)
			return
		}
		fields := map[string]any{"key": "a", "op": "increment"}
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber()
		require.NoError(t, decoder.Decode(&fields))
		op.Key = "a"
		requireSame(t, fields, op)
	})
}

// FuzzDecodeBatch compares the decoder with encoding/json: an accepted body must have the same operations.
func FuzzDecodeBatch(f *testing.F) {
	for _, seed := range append(batchSeeds(),
		operations(`{"op":"increment","key":"a","by":1}`, `{"op":"set","key":"b","value":7}`, `{"op":"delete","key":"c"}`),
		operations(`{"key":"a","op":"increment"}`, `{"op":"get","key":"a"}`, `{"op":"set","key":"","value":1}`, `{}`),
		operations(`{"op":"increment","key":"a","min":0,"max":5}`, `{"op":"set","key":"a","value":1,"min":0}`),
		operations(`{"op":"increment","key":"a","id":"one"}`, `{"id":"\u0020","op":"delete","key":"c"}`),
	) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		plan, err := api.DecodeBatch(text)
		if err != nil {
			require.Empty(t, plan)
			requireClientError(t, err)
			return
		}
		var body struct {
			Operations []map[string]any `json:"operations"`
		}
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber()
		require.NoError(t, decoder.Decode(&body))
		require.Len(t, plan, len(body.Operations))
		require.LessOrEqual(t, len(plan), api.MaxOperations)
		for i, p := range plan {
			if p.Err != nil {
				requireClientError(t, p.Err)
				continue
			}
			requireSame(t, body.Operations[i], p.Operation)
		}
	})
}

// batchSeeds returns the bodies of the bad batches that are shorter than 1,000 bytes.
func batchSeeds() []string {
	var seeds []string
	for _, c := range append(badBatches(), badSingleBatches()...) {
		if len(c.body) < 1000 {
			seeds = append(seeds, c.body)
		}
	}
	return seeds
}

func requireSame(t *testing.T, fields map[string]any, op counter.Operation) {
	t.Helper()
	require.Equal(t, fields["key"], string(op.Key))
	require.Equal(t, fields["op"], op.Kind.String())
	_, err := counter.ParseKey(string(op.Key))
	require.NoError(t, err)
	id, _ := fields["id"].(string)
	require.Equal(t, id, op.ID)
	name := map[counter.Kind]string{counter.Increment: "by", counter.Set: "value"}[op.Kind]
	amount, ok := fields[name].(json.Number)
	switch {
	case ok:
		n, err := amount.Int64()
		require.NoError(t, err)
		require.Equal(t, n, op.Amount)
	case op.Kind == counter.Increment:
		require.Equal(t, int64(1), op.Amount)
	default:
		require.Equal(t, counter.Delete, op.Kind)
		require.Zero(t, op.Amount)
	}
	requireSameBounds(t, fields, op.Condition)
}

func requireSameBounds(t *testing.T, fields map[string]any, c *counter.Condition) {
	t.Helper()
	bounds := make(map[string]int64)
	for _, name := range []string{"min", "max"} {
		if given, ok := fields[name].(json.Number); ok {
			n, err := given.Int64()
			require.NoError(t, err)
			bounds[name] = n
		}
	}
	if len(bounds) == 0 {
		require.Nil(t, c)
		return
	}
	want := counter.Unconditional()
	if least, given := bounds["min"]; given {
		want.Min = least
	}
	if most, given := bounds["max"]; given {
		want.Max = most
	}
	require.Equal(t, &want, c)
	require.LessOrEqual(t, c.Min, c.Max)
}

func requireClientError(t *testing.T, err error) {
	t.Helper()
	e, ok := errors.AsType[*counter.Error](err)
	require.True(t, ok)
	require.Equal(t, 400, api.Statuses()[e.Code])
	require.NotEmpty(t, e.Detail)
	require.Less(t, len(e.Detail), 1000)
}
