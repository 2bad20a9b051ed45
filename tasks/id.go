package tasks

import "github.com/afterwrite/afterwrite/internal/counter"

// FlushID is the TaskID of key's flush. No two keys share one.
func FlushID(key counter.Key) string { return keyID("flush:", key) }

// RetryID is the TaskID of key's retry. No two keys share one.
func RetryID(key counter.Key) string { return keyID("retry:", key) }

// keyID writes each byte of key that is not plain as ~ and two hexadecimal digits. Asynqmon puts IDs into URL paths without escaping
// them: with a key like x/../../pending_tasks:delete_all, a click on one task would request something else. Nothing reads the key from
// the ID: it is in the payload.
func keyID(prefix string, key counter.Key) string {
	escaped := 0
	for i := range len(key) {
		if !plain(key[i]) {
			escaped++
		}
	}
	if escaped == 0 {
		return prefix + string(key)
	}
	const digits = "0123456789ABCDEF"
	id := make([]byte, 0, len(prefix)+len(key)+2*escaped)
	id = append(id, prefix...)
	for i := range len(key) {
		if c := key[i]; plain(c) {
			id = append(id, c)
		} else {
			id = append(id, '~', digits[c>>4], digits[c&15])
		}
	}
	return string(id)
}

// plain reports whether c needs no escape in the path of a URL (RFC 3986, 2.3: unreserved; and the colon, which is allowed in an absolute
// path), except the ~ that keyID uses.
func plain(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return c == ':' || c == '_' || c == '-' || c == '.'
}
