// Package auth decides who may see the dashboard, and who may act there.
//
//   - Users have a name, a role and a bcrypt hash (ParseUsers), and sign in with a password (Gate.SignIn).
//   - Or a reverse proxy names the user in a header, which is accepted only from trusted proxies (Proxies).
//   - With neither, the dashboard is open: it listens on a loopback address only, and every visitor is the operator "local".
//
// Gate.Handler comes before all pages. A page behind it gets the Identity with Of, and checks CanAct before it changes anything. The
// table in docs/security.md lists what is rejected, and how. A test compares it with the program.
package auth
