package mapping

import (
	"slices"
	"strconv"
	"strings"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// commonKey returns a shortest key that both patterns match, and false if there is none. It is exact: it reads both patterns at once,
// breadth first. Where one of them is in a text, which takes any character but ':', the other one decides what may follow.
func commonKey(a, b Pattern) (string, bool) {
	if !strings.HasSuffix(a.last(), b.last()) && !strings.HasSuffix(b.last(), a.last()) {
		return "", false
	}
	type pair struct{ a, b state }
	type visit struct {
		pair

		from, bytes int
		by          byte
	}
	queue := []visit{{pair: pair{a.start(), b.start()}}}
	seen := map[pair]bool{queue[0].pair: true}
	for i := 0; i < len(queue); i++ {
		at := queue[i]
		if at.bytes > 0 && a.accepts(at.a) && b.accepts(at.b) {
			key := make([]byte, 0, at.bytes)
			for v := at; v.bytes > 0; v = queue[v.from] {
				key = append(key, v.by)
			}
			slices.Reverse(key)
			return string(key), true
		}
		if at.bytes == counter.MaxKeyBytes {
			continue
		}
		next := a.candidates(at.a)
		if a.inText(at.a) {
			next = b.candidates(at.b)
		}
		for _, c := range []byte(next) {
			sa, oka := a.step(at.a, c)
			sb, okb := b.step(at.b, c)
			to := pair{sa, sb}
			if !oka || !okb || seen[to] {
				continue
			}
			seen[to] = true
			queue = append(queue, visit{pair: to, from: i, bytes: at.bytes + 1, by: c})
		}
	}
	return "", false
}

// conflict says what is wrong with two mappings that are right alone, or returns "". before comes before m in the file.
func conflict(before, m *Mapping) string {
	if key, ok := commonKey(before.Pattern, m.Pattern); ok {
		return "key: " + strconv.Quote(m.Pattern.text) + " matches the key " + strconv.Quote(key) + ", and so does " +
			strconv.Quote(before.Pattern.text) + " of " + before.Name + ": change one so that a key has one mapping"
	}
	if before.Schema != m.Schema || before.Table != m.Table {
		return ""
	}
	for _, pair := range [][2]*Mapping{{before, m}, {m, before}} {
		if set := pair[0].Set; slices.ContainsFunc(pair[1].Where, func(c Column) bool { return c.Name == set }) {
			return "table: " + pair[0].Name + " sets " + pair[0].ColumnName() + ", by which " + pair[1].Name +
				" finds its row: choose another column"
		}
	}
	if before.Set == m.Set && !toldApart(before.Where, m.Where) {
		return "set: " + m.ColumnName() + " is also set by " + before.Name +
			": set another column, or add a column to where that is a different constant in each"
	}
	return ""
}

// toldApart reports whether no row has both: a column is another constant in each. Both are sorted by name.
func toldApart(a, b []Column) bool {
	for _, x := range a {
		for _, y := range b {
			if x.Name == y.Name && x.Placeholder < 0 && y.Placeholder < 0 && !maybeEqual(x.Constant, y.Constant) {
				return true
			}
		}
	}
	return false
}

// maybeEqual reports whether two constants may be one value. It does not know the type of the column, so it takes 1 and 01, and texts that
// differ only in case or in spaces around them, for equal. Package store refuses constants that Postgres would write differently.
func maybeEqual(a, b string) bool {
	a, b = strings.TrimSpace(a), strings.TrimSpace(b)
	x, errx := strconv.ParseFloat(a, 64)
	y, erry := strconv.ParseFloat(b, 64)
	if errx == nil && erry == nil && x == y {
		return true
	}
	return strings.EqualFold(a, b)
}
