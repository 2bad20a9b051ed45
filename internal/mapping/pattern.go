package mapping

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// maxPlaceholders bounds the placeholders of a pattern.
const maxPlaceholders = 8

// Pattern is a pattern of keys: literals with placeholders in between, as in "post:{id:int}:likes". A key matches in at most one way: each
// placeholder ends where its type says so, whatever follows.
type Pattern struct {
	text         string
	placeholders []Placeholder
	literals     []string // one before each placeholder, and one after the last; only the first and the last may be empty
}

// String returns the pattern as it is written in the file.
func (p Pattern) String() string { return p.text }

// Placeholders returns the placeholders in the order of the pattern. The caller must not change them.
func (p Pattern) Placeholders() []Placeholder { return p.placeholders }

// first and last return the literals at the ends of the pattern. Without a placeholder both are the whole pattern.
func (p Pattern) first() string { return p.literals[0] }
func (p Pattern) last() string  { return p.literals[len(p.literals)-1] }

// ParsePattern reads a pattern. Its error says what to change.
func ParsePattern(text string) (Pattern, error) {
	if !utf8.ValidString(text) {
		return Pattern{}, fmt.Errorf("%q is not UTF-8, as keys are: write it in UTF-8", text)
	}
	p := builder{Pattern{text: text}}
	rest := text
	for {
		literal, after, found := strings.Cut(rest, "{")
		if err := p.addLiteral(literal); err != nil {
			return Pattern{}, err
		}
		if !found {
			break
		}
		inside, next, closed := strings.Cut(after, "}")
		if !closed || strings.Contains(inside, "{") {
			return Pattern{}, fmt.Errorf("%q has a { without a }: write placeholders as {name:type}", text)
		}
		if err := p.addPlaceholder(inside); err != nil {
			return Pattern{}, err
		}
		rest = next
	}
	if least := p.leastBytes(); least > counter.MaxKeyBytes {
		return Pattern{}, fmt.Errorf("its shortest key has %d bytes, and a key has at most %d: shorten it", least, counter.MaxKeyBytes)
	}
	return p.Pattern, nil
}

// builder is a pattern of which only a part has been read.
type builder struct{ Pattern }

// addLiteral adds what follows the last placeholder, which must be able to tell where that one ends.
func (b *builder) addLiteral(literal string) error {
	if strings.Contains(literal, "}") {
		return fmt.Errorf("%q has a } without a {: write placeholders as {name:type}", b.text)
	}
	if i := strings.IndexFunc(literal, unicode.IsControl); i >= 0 {
		return fmt.Errorf("%q has a control character, which keys cannot have: remove it", b.text)
	}
	b.literals = append(b.literals, literal)
	if len(b.placeholders) == 0 || literal == "" {
		return nil // addPlaceholder refuses an empty one in the middle
	}
	before := b.placeholders[len(b.placeholders)-1]
	switch c := literal[0]; {
	case before.Type == Text && c != ':':
		return fmt.Errorf("{%s:text} is followed by %q: only ':' or the end can follow a text", before.Name, literal)
	case before.Type == Int && isDigit(c):
		return fmt.Errorf("{%s:int} is followed by the digit %c: put another character, such as ':', between them", before.Name, c)
	}
	return nil
}

// addPlaceholder adds the placeholder whose text between the braces is inside.
func (b *builder) addPlaceholder(inside string) error {
	name, typ, _ := strings.Cut(inside, ":")
	h := Placeholder{Name: name, Type: Type(typ)}
	switch {
	case !isPlaceholderName(name):
		return fmt.Errorf("the placeholder {%s} has no valid name: use 1 to 63 letters, digits and _, as in {post_id:int}",
			printable(inside))
	case !slices.Contains([]Type{Int, UUID, Text, Date}, h.Type):
		return fmt.Errorf("the placeholder {%s} needs a type: int, uuid, text or date, as in {%s:int}", printable(inside), name)
	case slices.ContainsFunc(b.placeholders, func(o Placeholder) bool { return o.Name == name }):
		return fmt.Errorf("two placeholders have the name %s: rename one", name)
	case len(b.placeholders) == maxPlaceholders:
		return fmt.Errorf("it has more than %d placeholders: use fewer", maxPlaceholders)
	case len(b.placeholders) > 0 && b.literals[len(b.literals)-1] == "":
		return fmt.Errorf("{%s} follows {%s} at once: put a literal, such as ':', between them",
			name, b.placeholders[len(b.placeholders)-1].Name)
	}
	b.placeholders = append(b.placeholders, h)
	return nil
}

// leastBytes returns the length of the shortest key in bytes.
func (p Pattern) leastBytes() int {
	n := 0
	for _, l := range p.literals {
		n += len(l)
	}
	for _, h := range p.placeholders {
		switch h.Type {
		case UUID:
			n += uuidBytes
		case Date:
			n += dateBytes
		case Int, Text:
			n++
		}
	}
	return n
}

func isPlaceholderName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (i == 0 || !isDigit(c)) {
			return false
		}
	}
	return s != "" && len(s) <= maxNameBytes
}

// printable returns s without what would break a line of a message.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
}
