package tasks

import "github.com/afterwrite/afterwrite/internal/counter"

// FlushID is the TaskID of key's flush. No two keys share one.
func FlushID(key counter.Key) string { return keyID("flush:", key) }

// RetryID is the TaskID of key's retry. No two keys share one.
func RetryID(key counter.Key) string { return keyID("retry:", key) }

// keyID writes each byte of key that is not plain as ~ and two hexadecimal digits. Asynqmon puts IDs into the paths of its
// calls as they are: with a key like x/../../pending_tasks:delete_all, a click on one task would be a call that means another
// thing. Nobody reads a key from an ID: it is in the payload.
func keyID(prefix string, key counter.Key) string {
	odd := 0
	for i := range len(key) {
		if !plain(key[i]) {
			odd++
		}
	}
	if odd == 0 {
		return prefix + string(key)
	}
	const digits = "0123456789ABCDEF"
	id := make([]byte, 0, len(prefix)+len(key)+2*odd)
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

// plain reports whether c means nothing but itself anywhere in the path of an URL (RFC 3986, 2.3: unreserved; and the colon,
// which an absolute path may have), but for the ~ that keyID writes.
func plain(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return c == ':' || c == '_' || c == '-' || c == '.'
}
