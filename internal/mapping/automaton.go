package mapping

import "strings"

// state is how far a pattern has read a key: in a literal or in a placeholder. A pattern is a deterministic automaton over these.
type state struct {
	part int   // 2i: in the literal i; 2i+1: in the placeholder i
	pos  uint8 // bytes of the part read; of an int only its digits
	acc  uint8 // what an int or a date has to remember
}

// What acc remembers of an int.
const (
	intNegative = 1 << iota
	intZero     // it is "0": no digit may follow
	intLess     // its digits are less than the limit's
	intGreater
)

// start returns the state before the first byte.
func (p Pattern) start() state { return p.settle(state{}) }

// settle moves on from a part that is complete and cannot go on.
func (p Pattern) settle(s state) state {
	if i := s.part / 2; s.part%2 == 0 {
		if int(s.pos) == len(p.literals[i]) && i < len(p.placeholders) {
			return state{part: s.part + 1}
		}
		return s
	}
	switch t := p.typeOf(s); {
	case t == UUID && s.pos == uuidBytes, t == Date && s.pos == dateBytes:
		return p.settle(state{part: s.part + 1})
	}
	return s
}

func (p Pattern) typeOf(s state) Type { return p.placeholders[s.part/2].Type }

// inText reports whether s is in a text placeholder.
func (p Pattern) inText(s state) bool { return s.part%2 == 1 && p.typeOf(s) == Text }

// canEnd reports whether s is in a placeholder of a variable length that may end here.
func (p Pattern) canEnd(s state) bool {
	if s.part%2 == 0 {
		return false
	}
	t := p.typeOf(s)
	return s.pos > 0 && (t == Int || t == Text)
}

// accepts reports whether a key may end in s.
func (p Pattern) accepts(s state) bool {
	if p.canEnd(s) {
		s = state{part: s.part + 1}
	}
	return s.part == 2*len(p.placeholders) && int(s.pos) == len(p.last())
}

// step reads the byte c, and returns false if no key goes on with it.
func (p Pattern) step(s state, c byte) (state, bool) {
	if s.part%2 == 0 {
		return p.stepLiteral(s, c)
	}
	next, ok := s, false
	switch p.typeOf(s) {
	case Int:
		next, ok = stepInt(s, c)
	case UUID:
		next.pos++
		ok = inUUID(int(s.pos), c)
	case Date:
		next.pos++
		next.acc, ok = stepDate(int(s.pos), s.acc, c)
	case Text:
		next.pos = 1 // how long it is does not matter
		ok = c != ':' && c >= ' ' && c != 0x7f
	}
	if !ok && p.canEnd(s) {
		return p.stepLiteral(state{part: s.part + 1}, c)
	}
	return p.settle(next), ok
}

func (p Pattern) stepLiteral(s state, c byte) (state, bool) {
	literal := p.literals[s.part/2]
	if int(s.pos) == len(literal) || literal[s.pos] != c {
		return s, false
	}
	s.pos++
	return p.settle(s), true
}

func stepInt(s state, c byte) (state, bool) {
	limit := maxInt
	if s.acc&intNegative != 0 {
		limit = minInt
	}
	switch {
	case c == '-':
		ok := s.pos == 0 && s.acc == 0
		s.acc = intNegative
		return s, ok
	case !isDigit(c), s.acc&intZero != 0, int(s.pos) == len(limit):
		return s, false
	case c == '0' && s.pos == 0:
		ok := s.acc == 0
		s.acc |= intZero | intLess
		s.pos++
		return s, ok
	}
	if s.acc&(intLess|intGreater) == 0 {
		if c < limit[s.pos] {
			s.acc |= intLess
		} else if c > limit[s.pos] {
			s.acc |= intGreater
		}
	}
	s.pos++
	return s, int(s.pos) < len(limit) || s.acc&intGreater == 0
}

// stepDate reads byte pos of a date. Of what it has read it remembers only what the rest depends on, so that there are few states.
func stepDate(pos int, acc, c byte) (byte, bool) {
	if pos == 4 || pos == 7 {
		return acc, c == '-'
	}
	if !isDigit(c) {
		return 0, false
	}
	d := c - '0'
	switch pos {
	case 0:
		return d, true
	case 1: // the century by its remainder modulo 4; 4 is the century 00
		if century := 10*acc + d; century > 0 {
			return century % 4, true
		}
		return 4, true
	case 2: // the third digit: 0, odd, or another even one
		if d > 0 {
			d = 2 - d%2
		}
		return 3*acc + d, true
	case 3:
		return stepYear(acc/3, acc%3, d)
	case 5: // acc is 1 in a leap year
		return 2*acc + d, d <= 1
	case 6:
		month := 10*(acc%2) + d
		return byte(daysIn(int(month), acc/2 == 1)), month >= 1 && month <= 12 //nolint:gosec // 28 to 31
	case 8: // acc is the number of days
		return 4*(acc-28) + d, 10*d <= acc
	}
	day := 10*(acc%4) + d
	return 0, day >= 1 && day <= 28+acc/4
}

// stepYear reads the last digit of a year, and returns 1 for a leap year.
func stepYear(century, third, d byte) (byte, bool) {
	leap := byte(0)
	if third == 0 && d == 0 {
		if century%4 == 0 {
			leap = 1
		}
		return leap, century != 4 // there is no year 0
	}
	if (2*third+d)%4 == 0 {
		leap = 1
	}
	return leap, true
}

// candidates returns one byte of each kind with which a key may go on from s. The first one gives the plainest example.
func (p Pattern) candidates(s state) string {
	if s.part%2 == 0 {
		if literal := p.literals[s.part/2]; int(s.pos) < len(literal) {
			return literal[s.pos : s.pos+1]
		}
		return ""
	}
	var own string
	switch p.typeOf(s) {
	case Int:
		own = "1234567890-"
	case Date:
		own = "1203456789-"
	case UUID:
		own = "0123456789abcdef-"
	case Text:
		own = "x"
	}
	if next := p.literals[s.part/2+1]; next != "" && p.canEnd(s) && !strings.Contains(own, next[:1]) {
		return own + next[:1]
	}
	return own
}
