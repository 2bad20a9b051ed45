package localtest

import "strings"

// EntryFields splits the text of an entry (see internal/cache/entry.lua) into v, n and e for value, version and epoch, "1" for
// each of its flags (x, u, s, a), and the other fields by their letters. It is empty for no entry.
func EntryFields(text string) map[string]string {
	fields := make(map[string]string)
	for i, word := range strings.Fields(text) {
		switch i {
		case 0:
			fields["v"] = word
		case 1:
			fields["n"] = word
		case 2:
			epoch, flags, _ := strings.Cut(word, ":")
			fields["e"] = epoch
			for _, flag := range flags {
				fields[string(flag)] = "1"
			}
		default:
			fields[word[:1]] = word[1:]
		}
	}
	return fields
}
