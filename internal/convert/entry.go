package convert

import (
	"math"
	"strconv"
	"strings"
)

// entry2 is an entry of layout 2: "<value> <version>", then fields that each begin with a letter.
type entry2 struct {
	value, version string
	deleted        bool
	unknown        bool // the base is unknown
	replaced       bool // the base is unknown, and the counter was set or deleted since

	lineage string // decimal; "" if the entry has no unsynced writes
	base    string
	before  string // the value before the lineage; "" if the counter was set or deleted since
	past    string // ended lineages
}

// runDigits is the number of digits at the start of a lineage in layout 2 that identify the incarnation of Redis.
const runDigits = 8

// parseEntry2 parses an entry of layout 2. It returns false if text is not one.
func parseEntry2(text string) (entry2, bool) {
	var e entry2
	var rest string
	e.value, rest, _ = strings.Cut(text, " ")
	e.version, rest, _ = strings.Cut(rest, " ")
	if !isNumber(e.value) || !isVersion(e.version) {
		return entry2{}, false
	}
	lineage, hasBase := "", false
	for field := range strings.SplitSeq(rest, " ") {
		if field == "" {
			continue
		}
		what := field[1:]
		switch field[0] {
		case 'x':
			e.deleted = true
		case 'u':
			e.unknown, e.replaced = true, what == "2"
		case 'e':
			lineage = what
		case 'b':
			e.base, hasBase = what, isVersion(what)
		case 'w':
			if isNumber(what) {
				e.before = what
			}
		case 'p':
			e.past = what
		}
	}
	if len(lineage) > runDigits && isLineage(lineage[runDigits:]) && hasBase {
		e.lineage = lineage[runDigits:]
	}
	return e, true
}

func isNumber(s string) bool {
	_, err := strconv.ParseInt(s, 10, 64)
	return err == nil && s[0] != '+'
}

func isVersion(s string) bool { return isNumber(s) && s[0] != '-' }

const (
	// epochDigits is how long epochs and lineages are in base 36: they are microseconds.
	epochDigits = 10
	// maxLineage is the last of that length, in the year 2085. What is larger was not written by afterwrite.
	maxLineage = 36*36*36*36*36*36*36*36*36*36 - 1
)

func isLineage(s string) bool {
	n, err := strconv.ParseInt(s, 10, 64)
	return err == nil && n > 0 && n <= maxLineage
}

// isLayout3 reports whether an entry has layout 3. Its third field is then an epoch: 0, or ten digits of base 36. In layout 2 the third
// field is a letter with at most two characters, or a lineage, which is longer.
func isLayout3(text string) bool {
	_, rest, _ := strings.Cut(text, " ")
	_, rest, _ = strings.Cut(rest, " ")
	epoch, _, _ := strings.Cut(rest, " ")
	epoch, _, _ = strings.Cut(epoch, ":")
	return epoch == "0" || len(epoch) == epochDigits
}

// dirty reports whether the entry itself has unsynced writes. Its dirty mark may have been removed by hand.
func (e *entry2) dirty() bool { return e.lineage != "" || e.unknown }

// clean returns the text in layout 3 of a clean entry.
func (e *entry2) clean() string {
	text := e.value + " " + e.version + " 0"
	if e.deleted {
		text += ":x"
	}
	return text
}

// unsynced returns the text in layout 3 of a dirty entry of this epoch. aside reports whether it is set aside.
func (e *entry2) unsynced(epoch string, aside bool) string {
	var b strings.Builder
	b.WriteString(e.value + " " + e.version + " " + epoch)
	if flags := e.flags(aside); flags != "" {
		b.WriteString(":" + flags)
	}
	if e.lineage == "" { // marked dirty by hand, or by `verify --repair`: its flush may replace any older version
		b.WriteString(e.baseless())
		return b.String()
	}
	b.WriteString(" l" + base36(e.lineage) + " b" + e.base)
	if e.before != "" {
		b.WriteString(" w" + e.before)
	}
	if past, _ := e.endedLineages(); past != "" {
		b.WriteString(" p" + past)
	}
	return b.String()
}

func (e *entry2) flags(aside bool) string {
	flags := ""
	if e.deleted {
		flags += "x"
	}
	switch {
	case e.unknown && e.replaced:
		flags += "s"
	case e.unknown:
		flags += "u"
	}
	if aside {
		flags += "a"
	}
	return flags
}

// baseless returns the base of an entry without a lineage.
func (e *entry2) baseless() string {
	version, _ := strconv.ParseInt(e.version, 10, 64)
	switch {
	case e.unknown && e.replaced:
		return " b0"
	case e.unknown:
		return " b0 w0"
	default:
		return " b" + strconv.FormatInt(max(version-1, 0), 10)
	}
}

// endedLineages returns the ended lineages with their numbers in base 36, and the greatest of these.
func (e *entry2) endedLineages() (text string, last int64) {
	var b strings.Builder
	for lineage := range strings.SplitSeq(e.past, ";") {
		number, state, _ := strings.Cut(lineage, ",")
		value, version, _ := strings.Cut(state, ",")
		if !isLineage(number) || (value != "set" && !isNumber(value)) || !isVersion(version) {
			continue // the text before the first separator, or not written by afterwrite
		}
		b.WriteString(";" + base36(number) + "," + state)
		n, _ := strconv.ParseInt(number, 10, 64)
		last = max(last, n)
	}
	return b.String(), last
}

// lastLineage is the greatest number of its lineages, 0 if it has none.
func (e *entry2) lastLineage() int64 {
	_, last := e.endedLineages()
	n, _ := strconv.ParseInt(e.lineage, 10, 64) // "" is 0
	return max(n, last)
}

func base36(decimal string) string {
	n, _ := strconv.ParseInt(decimal, 10, 64)
	return strconv.FormatInt(n, 36)
}

// record3 returns the text in layout 3 of an idempotency record, "<operation>|<answer>". In layout 2 the answer to an applied operation
// ends with the size of the backlog.
func record3(text string) string {
	operation, line, found := strings.Cut(text, "|")
	words := strings.Split(line, " ")
	if found && (words[0] == "a" && len(words) == 4 || words[0] == "u" && len(words) == 2) {
		words = words[:len(words)-1]
	}
	if !found {
		return text
	}
	return operation + "|" + strings.Join(words, " ")
}

// score2 is the meaning of a dirty key's score in layout 2.
type score2 struct {
	dirty, dead, waits bool

	ms int64 // when the key became dirty, or when its retry is due
}

const (
	// deadScore is the score of a dead key.
	deadScore = 1 << 52
	// farAhead is longer than any wait for a retry. A later time was set by a clock that was ahead.
	farAhead = 3 * 60 * 60 * 1000
)

// readScore parses a score at the time now (ms). A nil score means that the key is not dirty.
func readScore(score *float64, now int64) score2 {
	if score == nil {
		return score2{}
	}
	if *score >= deadScore {
		return score2{dirty: true, dead: true}
	}
	ms := int64(math.Floor(*score))
	if ms > now+farAhead {
		return score2{dirty: true, ms: now}
	}
	return score2{dirty: true, waits: ms > now, ms: ms}
}
