package localtest

import "strings"

// EntryFields splits the text of an entry (see internal/cache/entry.lua) into its letters, with v and n for value and version,
// and "1" for what is only there or not. It is empty for no entry.
func EntryFields(text string) map[string]string {
	fields := make(map[string]string)
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
			fields["v"] = word
		case i == 1:
			fields["n"] = word
		case len(word) == 1:
			fields[word] = "1"
		default:
			fields[word[:1]] = word[1:]
		}
	}
	return fields
}
