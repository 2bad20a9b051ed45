package client

// Meaning returns whether the client knows a code, and what it means for the write.
func Meaning(code Code) (known bool, applied Applied) {
	m, known := meanings[code]
	return known, m.applied
}
