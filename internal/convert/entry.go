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
	unknown        bool // the base is unknown,
	replaced       bool // and the value was set or deleted since

	life   string // number of its run of unsynced writes, decimal; "" if it has none
	base   string
	before string // the value before the run; "" if it was set or deleted since
	past   string // ended runs
}

// runDigits is how many digits of a life in layout 2 name the run of Redis that it began in.
const runDigits = 8

// parseEntry2 reports false if text is no entry of layout 2.
func parseEntry2(text string) (entry2, bool) {
	var e entry2
	var rest string
	e.value, rest, _ = strings.Cut(text, " ")
	e.version, rest, _ = strings.Cut(rest, " ")
	if !isNumber(e.value) || !isVersion(e.version) {
		return entry2{}, false
	}
	life, hasBase := "", false
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
			life = what
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
	if len(life) > runDigits && isLife(life[runDigits:]) && hasBase {
		e.life = life[runDigits:]
	}
	return e, true
}

func isNumber(s string) bool {
	_, err := strconv.ParseInt(s, 10, 64)
	return err == nil && s[0] != '+'
}

func isVersion(s string) bool { return isNumber(s) && s[0] != '-' }

const (
	// epochDigits is how long epochs and lives are in base 36: they are microseconds.
	epochDigits = 10
	// maxLife is the last of that length, in the year 2085. What is larger was not written by afterwrite.
	maxLife = 36*36*36*36*36*36*36*36*36*36 - 1
)

func isLife(s string) bool {
	n, err := strconv.ParseInt(s, 10, 64)
	return err == nil && n > 0 && n <= maxLife
}

// isLayout3 tells entries of layout 3 from those of layout 2. Their third field is an epoch: 0, or ten digits of base 36. In
// layout 2 it is a letter with at most two characters, or a life, which is longer.
func isLayout3(text string) bool {
	_, rest, _ := strings.Cut(text, " ")
	_, rest, _ = strings.Cut(rest, " ")
	epoch, _, _ := strings.Cut(rest, " ")
	epoch, _, _ = strings.Cut(epoch, ":")
	return epoch == "0" || len(epoch) == epochDigits
}

// dirty reports that only Redis has the entry, whether it is marked dirty or not: somebody may have removed the mark.
func (e *entry2) dirty() bool { return e.life != "" || e.unknown }

// clean is the text in layout 3 of an entry that Postgres has.
func (e *entry2) clean() string {
	text := e.value + " " + e.version + " 0"
	if e.deleted {
		text += ":x"
	}
	return text
}

// unsynced is the text in layout 3 of an entry that Postgres does not have: of the given epoch, or set aside.
func (e *entry2) unsynced(epoch string, aside bool) string {
	var b strings.Builder
	b.WriteString(e.value + " " + e.version + " " + epoch)
	if flags := e.flags(aside); flags != "" {
		b.WriteString(":" + flags)
	}
	if e.life == "" { // marked dirty by hand, or by `verify --repair`: its flush may replace any older version
		b.WriteString(e.baseless())
		return b.String()
	}
	b.WriteString(" l" + base36(e.life) + " b" + e.base)
	if e.before != "" {
		b.WriteString(" w" + e.before)
	}
	if past, _ := e.pastLives(); past != "" {
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

// baseless is the base of an entry without a life.
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

// pastLives returns the ended lives with their numbers in base 36, and the greatest of these.
func (e *entry2) pastLives() (text string, last int64) {
	var b strings.Builder
	for life := range strings.SplitSeq(e.past, ";") {
		number, state, _ := strings.Cut(life, ",")
		value, version, _ := strings.Cut(state, ",")
		if !isLife(number) || (value != "set" && !isNumber(value)) || !isVersion(version) {
			continue // what stands before the first, or somebody's own
		}
		b.WriteString(";" + base36(number) + "," + state)
		n, _ := strconv.ParseInt(number, 10, 64)
		last = max(last, n)
	}
	return b.String(), last
}

// lastLife is the greatest number of its lives, 0 if it has none.
func (e *entry2) lastLife() int64 {
	_, last := e.pastLives()
	n, _ := strconv.ParseInt(e.life, 10, 64) // "" is 0
	return max(n, last)
}

func base36(decimal string) string {
	n, _ := strconv.ParseInt(decimal, 10, 64)
	return strconv.FormatInt(n, 36)
}

// record3 is the text in layout 3 of an idempotency record: "<operation>|<answer>". In layout 2 an answer that was applied
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

// score2 is what the score of a dirty key says in layout 2.
type score2 struct {
	dirty, dead, waits bool

	ms int64 // since when it is dirty, or when its retry is due
}

const (
	// deadScore is that of a dead key.
	deadScore = 1 << 52
	// farAhead is later than any retry is due: such a time was set by a clock that was ahead.
	farAhead = 3 * 60 * 60 * 1000
)

// readScore reads a score at the time now (ms); nil: the key is not dirty.
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
