// Package auth decides who may see the dashboard, and who may act there.
//
//   - Users are names with a role and a bcrypt hash (ParseUsers), and sign in with a password: SignIn, sessions, limits.
//   - Or a reverse proxy says who it is, in a header that counts only from the addresses of trusted proxies (Proxies).
//   - Without either, whoever reaches the loopback address is this machine's own user, an operator.
//
// Gate.Handler comes before all pages. A page behind it gets the Identity with Of, and checks CanAct before it changes anything. The
// table in docs/security.md says what is rejected, and how; a test writes and compares it.
package auth
