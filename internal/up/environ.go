package up

import (
	"strings"

	"github.com/afterwrite/afterwrite/internal/config"
)

// childEnv returns environ with the addresses of this run. It leaves out PORT, which would give all four processes the same port, and
// unknown variables, because `up` has already warned about them and each child would warn again.
func childEnv(environ []string, c config.Config, all []address) []string {
	set := map[string]string{"REDIS_URL": c.RedisURL, "DATABASE_URL": c.DatabaseURL}
	given := make(map[string]string, len(environ))
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		given[name] = value
	}
	dropped := map[string]bool{"PORT": true}
	for _, v := range config.Unknown(given) {
		dropped[v.Name] = true
	}
	for _, p := range all {
		variable := p.variable
		if variable == "PORT" {
			variable = "AFTERWRITE_API_ADDR"
		}
		set[variable] = p.addr
	}

	env := make([]string, 0, len(environ)+len(set))
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if _, ours := set[name]; !ours && !dropped[name] {
			env = append(env, entry)
		}
	}
	for name, value := range set {
		env = append(env, name+"="+value)
	}
	return env
}
