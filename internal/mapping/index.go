package mapping

import (
	"bytes"
	"strings"
)

// node is a node of the index, a tree of the literals and placeholders of all patterns. So a key is read once, however many mappings there
// are: 100 mappings cost hardly more than one.
type node struct {
	literal      string // comes before what follows
	bytes        []byte // the bytes that may follow in a literal, and where each leads to
	next         []*node
	placeholders []branch
	end          *Mapping // whose keys end here, or nil
}

// branch leads to what follows a placeholder.
type branch struct {
	typ  Type
	next *node
}

func newIndex(all []*Mapping) *node {
	root := &node{}
	for _, m := range all {
		at := root.addLiteral(m.Pattern.first())
		for i, h := range m.Pattern.placeholders {
			at = at.addPlaceholder(h.Type).addLiteral(m.Pattern.literals[i+1])
		}
		at.end = m
	}
	root.shorten()
	return root
}

func (n *node) addLiteral(literal string) *node {
	for i := range len(literal) {
		at := bytes.IndexByte(n.bytes, literal[i])
		if at < 0 {
			at = len(n.next)
			n.bytes = append(n.bytes, literal[i])
			n.next = append(n.next, &node{})
		}
		n = n.next[at]
	}
	return n
}

func (n *node) addPlaceholder(typ Type) *node {
	for _, b := range n.placeholders {
		if b.typ == typ {
			return b.next
		}
	}
	next := &node{}
	n.placeholders = append(n.placeholders, branch{typ, next})
	return next
}

// shorten turns chains of single bytes into one literal. It calls itself at most once for each byte of a pattern.
func (n *node) shorten() {
	for len(n.next) == 1 && len(n.placeholders) == 0 && n.end == nil {
		literal, only := n.literal+string(n.bytes), n.next[0]
		*n = *only
		n.literal = literal
	}
	for _, next := range n.next {
		next.shorten()
	}
	for _, b := range n.placeholders {
		b.next.shorten()
	}
}

// find returns the mapping that the rest of key from at matches, or nil, and sets the places of its values from the i-th on. It visits
// each node at most once, because the way to a node says where in the key it is.
func (n *node) find(key string, at, i int, found *spans) *Mapping {
	if !strings.HasPrefix(key[at:], n.literal) {
		return nil
	}
	at += len(n.literal)
	if at == len(key) {
		return n.end
	}
	if next := bytes.IndexByte(n.bytes, key[at]); next >= 0 {
		if m := n.next[next].find(key, at+1, i, found); m != nil {
			return m
		}
	}
	for _, b := range n.placeholders {
		length := b.typ.scan(key[at:])
		if length == 0 {
			continue
		}
		found[i].from, found[i].to = uint8(at), uint8(at+length) //nolint:gosec // at most 255
		if m := b.next.find(key, at+length, i+1, found); m != nil {
			return m
		}
	}
	return nil
}
