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
// nor its comparison depends on how much of a key was guessed, because one changed character changes the whole hash. To confirm the
// first n bytes of a stored hash, a caller would have to try about 256^n keys. A whole hash would not help either: the key has 256
// random bits. In addition, the map hashes with a random seed, and the comparison with the hash that was found, or with a dummy,
// takes constant time.
package auth
