// Package auth decides who may see the dashboard, and who may act there.
//
//   - Users have a name, a role and a bcrypt hash (ParseUsers), and sign in with a password (Gate.SignIn).
//   - Or a reverse proxy names the user in a header, which is accepted only from trusted proxies (Proxies).
//   - With neither, the dashboard is open: it listens on a loopback address only, and every visitor is the operator "local".
//
// Gate.Handler comes before all pages. A page behind it calls Of to get the Identity, and checks CanAct before it changes anything. The
// table in docs/security.md lists what is rejected, and how. A test checks the table against the code.
package auth
