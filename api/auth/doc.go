// Package auth decides which requests the API carries out, by the API key that they send.
//
//   - A Key has a name, scopes and perhaps a prefix. Settings have its SHA-256 hash (Source, ParseList, ParseFile); only the client has
//     the key itself (Generate).
//   - A Keyring holds the keys at present, and replaces all of them at once (Replace).
//   - Keyring.Admit returns the Key of a request, or the error for the client. The handler then asks the Key which counters it may use
//     (Covers, Within), and takes its operations from the key's rate (Take, Wait).
//
// The table of routes in package api has the scope of each route. docs/security.md says what is refused, and how.
//
// # Timing
//
// The time of a request reveals nothing about the keys. A sent key is hashed, and the hash is looked up in a map. Neither the hash
// nor its comparison depends on how much of a key was guessed: one changed character changes the whole hash, and a caller cannot
// choose a key whose hash begins with given bytes without trying as many keys as these bytes have values. Whoever would learn a whole
// hash in this way would still need the key of 256 random bits that has it. On top of that, the map hashes with a random seed, and
// the hash that was found, or a dummy, is compared in constant time.
package auth
