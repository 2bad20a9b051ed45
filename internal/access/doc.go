// Package access decides who may see the dashboard, and who may act there.
//
//   - Users are names with a role and a bcrypt hash (ParseUsers), and sign in with a password: SignIn, Sessions, limits.
//   - Or a reverse proxy says who it is, in a header that counts only from the addresses of trusted proxies (Proxies).
//   - Without either, who reaches the loopback address is this machine's own user, an operator.
//
// Gate.Handler stands before all pages: a page behind it has an Identity (Of), and asks May where something is changed. What
// is refused, and how, is the table in docs/security.md, which a test prints and compares.
package access
