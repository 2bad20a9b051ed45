package up

import (
	"strings"

	"github.com/afterwrite/afterwrite/internal/config"
)

// childEnv is environ with the addresses that were decided here. PORT is taken out: it would move all four processes to
// the same port.
func childEnv(environ []string, c config.Config, all []place) []string {
	decided := map[string]string{"REDIS_URL": c.RedisURL, "DATABASE_URL": c.DatabaseURL}
	for _, p := range all {
		variable := p.variable
		if variable == "PORT" {
			variable = "AFTERWRITE_API_ADDR"
		}
		decided[variable] = p.addr
	}

	env := make([]string, 0, len(environ)+len(decided))
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if _, ours := decided[name]; !ours && name != "PORT" {
			env = append(env, entry)
		}
	}
	for name, value := range decided {
		env = append(env, name+"="+value)
	}
	return env
}
