package dashboard

import (
	"net/http"

	"github.com/afterwrite/afterwrite/internal/access"
)

// answers are the pages of those who are not let in.
type answers struct {
	signIn, refusal *page
}

var _ access.Answers = (*answers)(nil)

func newAnswers(s *shared) *answers {
	return &answers{
		signIn:  newPage(s, access.SignInPath, "Sign in", "signin.html"),
		refusal: newPage(s, "", "Refused", "refusal.html"),
	}
}

// signInData is what signin.html shows.
type signInData struct {
	Wrong, Next, Path string
}

// SignIn implements access.Answers.
func (a *answers) SignIn(w http.ResponseWriter, r *http.Request, status int, wrong, next string) {
	a.signIn.render(w, r, status, signInData{Wrong: wrong, Next: next, Path: access.SignInPath})
}

// refusalData is what refusal.html shows.
type refusalData struct {
	Title, Why string
	SignIn     bool
}

// Refuse implements access.Answers.
func (a *answers) Refuse(w http.ResponseWriter, r *http.Request, status int, why string) {
	a.refusal.render(w, r, status, refusalData{Title: http.StatusText(status), Why: why, SignIn: status == http.StatusUnauthorized})
}
