package cache_test

import (
	"fmt"
	"math"
	"math/big"
	"os"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// prelude returns a script of entry.lua followed by lua.
func prelude(t *testing.T, lua string) *redis.Script {
	t.Helper()
	entry, err := os.ReadFile("entry.lua")
	require.NoError(t, err)
	return redis.NewScript(string(entry) + lua)
}

func TestLuaAndGoAgreeOnEpochIDs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	script := prelude(t, `return { base36(tonumber(ARGV[1])), fmt('%.0f', number(ARGV[2])) }`)
	ids := rapid.OneOf(
		rapid.Int64Range(0, 1<<53), rapid.Int64Range(0, 100), rapid.Int64Range(1<<53-100, 1<<53),
		rapid.Map(rapid.IntRange(0, 10), pow36),
		rapid.Map(rapid.IntRange(1, 10), func(n int) int64 { return pow36(n) - 1 }),
		rapid.Int64Range(1_700_000_000_000_000, 2_100_000_000_000_000),
	)
	rapid.Check(t, func(rt *rapid.T) {
		id := ids.Draw(rt, "id")
		text := strconv.FormatInt(id, 36)
		reply, err := script.Run(t.Context(), b.redis, nil, strconv.FormatInt(id, 10), text).StringSlice()
		require.NoError(rt, err)
		require.Equal(rt, []string{text, strconv.FormatInt(id, 10)}, reply)
	})
}

func pow36(n int) int64 {
	p := int64(1)
	for range n {
		p *= 36
	}
	return p
}

// int64s generates integers around every bound at which the scripts change their arithmetic.
func int64s() *rapid.Generator[int64] {
	around := func(n int64) *rapid.Generator[int64] { return rapid.Int64Range(n-3, n+3) }
	return rapid.OneOf(
		rapid.Int64(), rapid.Int64Range(-1000, 1000), rapid.Int64Range(-1e14, 1e14),
		around(1e9), around(-1e9), around(1e12), around(-1e12), around(1e13), around(-1e13), around(2e10), around(-2e10),
		around(1e15), around(-1e15), around(1e17), around(1e18), around(-1e18), around(1<<53), around(-(1 << 53)),
		rapid.Int64Range(math.MaxInt64-5, math.MaxInt64), rapid.Int64Range(math.MinInt64, math.MinInt64+5),
	)
}

func TestLuaSumsEqualIntegerSums(t *testing.T) {
	t.Parallel()
	b := setup(t)
	script := prelude(t, `return sum(ARGV[1], ARGV[2], ARGV[3]) or 'overflow'`)
	rapid.Check(t, func(rt *rapid.T) {
		x, y, z := int64s().Draw(rt, "x"), int64s().Draw(rt, "y"), int64s().Draw(rt, "z")
		args, want := []any{x, y}, new(big.Int).Add(big.NewInt(x), big.NewInt(y))
		if rapid.Bool().Draw(rt, "three") {
			args = append(args, z)
			want.Sub(want, big.NewInt(z))
		}
		text := want.String()
		if !want.IsInt64() {
			text = "overflow"
		}
		got, err := script.Run(t.Context(), b.redis, nil, args...).Text()
		require.NoError(rt, err)
		require.Equal(rt, text, got)
	})
}

// An entry that only one of them accepts could be neither flushed nor answered.
func TestLuaAndGoAcceptTheSameEntries(t *testing.T) {
	t.Parallel()
	b := setup(t)
	script := prelude(t, `local e = decode(ARGV[1]) return e and encode(e) or 'corrupt'`)
	words := func(words ...string) *rapid.Generator[string] { return rapid.SampledFrom(words) }
	ids := []string{"0", "1q", "zzzzzzzzzz", "zzzzzzzzzzz", "zzzzzzzzzzzzzzz", "", "-1", "_", "1.5", "A1"}
	numbers := []string{
		"0", "7", "-7", "1000000000000000", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
		"-9223372036854775809", "99999999999999999999", "", "x", "1.5", "+1", "0x1",
	}
	rapid.Check(t, func(rt *rapid.T) {
		text := words(numbers...).Draw(rt, "value") + " " + words(numbers...).Draw(rt, "version") + " " + words(ids...).Draw(rt, "epoch")
		if flags := words("", "", ":x", ":u", ":s", ":a", ":xa", ":ua", ":xua", ":", ":q", ":1").Draw(rt, "flags"); flags != "" {
			text += flags
		}
		for _, letter := range words("", "", "l", "b", "w", "lbw", "bwp", "lp", "q").Draw(rt, "fields") {
			switch letter {
			case 'l':
				text += " l" + words(ids...).Draw(rt, "l")
			case 'p':
				text += " p" + words(";1q,5,1", ";1q,set,1;1r,-7,2", "", "x", ";1q,5", ";1q,x,1", ";_,5,1", ";1q,5,1;", "1q,5,1", ";1q,5,-1",
					";zzzzzzzzzzzz,5,1", ";1q,9223372036854775808,1", ";1q,5,9223372036854775808", ";a;b,5,1,set,1").Draw(rt, "p")
			default:
				text += fmt.Sprintf(" %c%s", letter, words(numbers...).Draw(rt, "number"))
			}
		}
		text += words("", "", "", "", " ", "\n", " x", "  b1").Draw(rt, "end")
		lua, err := script.Run(t.Context(), b.redis, nil, text).Text()
		require.NoError(rt, err)
		require.NoError(rt, b.redis.Set(t.Context(), b.entryKey("k"), text, 0).Err())
		entry := b.read(t, "k")

		require.Equal(rt, entry.Corrupt, lua == "corrupt", "%q", text)
		if !entry.Corrupt {
			require.NoError(rt, b.redis.Set(t.Context(), b.entryKey("k"), lua, 0).Err())
			require.Equal(rt, bareEntry(entry), bareEntry(b.read(t, "k")), "%q, written again as %q", text, lua)
		}
	})
}

// bareEntry returns an entry without its text.
func bareEntry(e cache.Entry) cache.Entry {
	return cache.Entry{Row: e.Row, Epoch: e.Epoch, Missing: e.Missing, Corrupt: e.Corrupt, BaseUnknown: e.BaseUnknown, Aside: e.Aside}
}
