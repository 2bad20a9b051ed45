package mapping

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"go.yaml.in/yaml/v3"
)

// The bounds of a file.
const (
	maxFileBytes = 1 << 20
	maxMappings  = 100
)

// Read reads the mappings of the file at path, as Parse does.
func Read(path string) (*Mappings, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the mappings: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the mappings: %w", err)
	}
	m, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("the mappings in %s are not valid:\n%w", path, err)
	}
	return m, nil
}

// Parse reads the YAML text of a file of mappings: 1 to 100 mappings in at most 1 MiB. Its error has all problems, each in one line that
// begins with the name of the mapping (or its number) and says what to change.
func Parse(text []byte) (*Mappings, error) {
	list, err := listOf(text)
	if err != nil {
		return nil, err
	}
	var problems []error
	var good []*entry
	names := map[string]int{}
	for i, node := range list {
		e := parseEntry(i+1, resolve(node))
		if line, twice := names[e.m.Name]; twice && e.m.Name != "" {
			e.failf(node, "name: a mapping at line %d has it too: rename one", line)
		}
		names[e.m.Name] = node.Line
		if len(e.problems) == 0 {
			good = append(good, e)
		}
		problems = append(problems, e.problems...)
	}
	all := make([]*Mapping, len(good))
	for i, e := range good {
		all[i] = e.m
		for _, before := range all[:i] {
			if text := conflict(before, e.m); text != "" { // the first one is enough
				e.failf(e.node, "%s", text)
				break
			}
		}
		problems = append(problems, e.problems...)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return newMappings(all), nil
}

// listOf returns the list of the field mappings, the only one of the document.
func listOf(text []byte) ([]*yaml.Node, error) {
	if len(text) > maxFileBytes {
		return nil, fmt.Errorf("the file has more than %d bytes: make it shorter", maxFileBytes)
	}
	root, err := rootOf(text)
	if err != nil {
		return nil, err
	}
	var list *yaml.Node
	for i := 0; i < len(root.Content); i += 2 {
		switch key := root.Content[i]; {
		case key.Value != "mappings":
			return nil, fmt.Errorf("line %d: unknown field %q: the file has only the field mappings", key.Line, key.Value)
		case list != nil:
			return nil, fmt.Errorf("line %d: the field mappings is there twice: join both lists", key.Line)
		}
		list = resolve(root.Content[i+1])
	}
	switch {
	case isNull(list), list.Kind == yaml.SequenceNode && len(list.Content) == 0:
		return nil, errEmpty
	case list.Kind != yaml.SequenceNode:
		return nil, fmt.Errorf("line %d: mappings is not a list: begin each mapping with \"- name:\"", list.Line)
	case len(list.Content) > maxMappings:
		return nil, fmt.Errorf("the file has %d mappings: it can have at most %d", len(list.Content), maxMappings)
	}
	return list.Content, nil
}

// rootOf returns the fields of the only document.
func rootOf(text []byte) (*yaml.Node, error) {
	var doc, more yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, errEmpty
	} else if err != nil {
		return nil, fmt.Errorf("the file is not YAML: %w", err)
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("the file has more than one YAML document: remove what follows ---")
	}
	if len(doc.Content) == 0 {
		return nil, errEmpty
	}
	root := resolve(doc.Content[0])
	if isNull(root) || root.Kind == yaml.MappingNode && len(root.Content) == 0 {
		return nil, errEmpty
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: the file begins with something else than mappings: begin it with \"mappings:\"", root.Line)
	}
	return root, nil
}

var errEmpty = errors.New("the file has no mappings: add one, or leave AFTERWRITE_MAPPINGS empty")

// resolve returns the node that an alias stands for.
func resolve(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null" }
