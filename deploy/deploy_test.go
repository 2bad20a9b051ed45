// Package deploy_test checks the manifests and units against the program: its variables, paths, ports and times.
package deploy_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/afterwrite/afterwrite/internal/config"
)

// ports are those of the ConfigMap.
var ports = map[string]int{"api": 8080, "dashboard": 8081, "worker": 8082, "scheduler": 8083}

// stopsWithin is how long a process takes to end after SIGTERM and AFTERWRITE_SHUTDOWN_DELAY: see docs/operations.md.
const stopsWithin = 10 * time.Second

type object struct {
	Kind     string
	Metadata struct{ Name string }
	Spec     struct {
		Template    template
		JobTemplate struct{ Spec struct{ Template template } } `yaml:"jobTemplate"`
		Ports       []struct {
			Port       int
			TargetPort string `yaml:"targetPort"`
		}
		Triggers []struct{ Metadata struct{ Query string } }
	}
}

type template struct {
	Spec struct {
		Grace      int `yaml:"terminationGracePeriodSeconds"`
		Containers []container
		Security   struct {
			NonRoot bool `yaml:"runAsNonRoot"`
			User    int  `yaml:"runAsUser"`
		} `yaml:"securityContext"`
	}
}

type container struct {
	Name, Image string
	Command     []string
	Args        []string
	Ports       []struct {
		Name string
		Port int `yaml:"containerPort"`
	}
	Env []struct {
		Name, Value string
		ValueFrom   struct {
			Secret struct{ Name, Key string } `yaml:"secretKeyRef"`
		} `yaml:"valueFrom"`
	}
	Startup, Liveness, Readiness probe
	Resources                    struct {
		Requests, Limits struct{ Memory string }
	}
}

type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
	Timeout int                         `yaml:"timeoutSeconds"`
	Period  int                         `yaml:"periodSeconds"`
	Failure int                         `yaml:"failureThreshold"`
}

// pods returns the templates of all pods in deploy/k8s, and all objects.
func pods(t *testing.T) (templates []template, objects []object) {
	t.Helper()
	require.NoError(t, filepath.WalkDir("k8s", func(path string, _ os.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yaml" || filepath.Base(path) == "kustomization.yaml" {
			return err
		}
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		// Names with Probe have no field of their own.
		text = regexp.MustCompile(`(startup|liveness|readiness)Probe:`).ReplaceAll(text, []byte("$1:"))
		decoder := yaml.NewDecoder(bytes.NewReader(text))
		for {
			var o object
			err := decoder.Decode(&o)
			if errors.Is(err, io.EOF) {
				return nil
			}
			require.NoError(t, err, path)
			objects = append(objects, o)
			for _, pod := range []template{o.Spec.Template, o.Spec.JobTemplate.Spec.Template} {
				if len(pod.Spec.Containers) > 0 {
					templates = append(templates, pod)
				}
			}
		}
	}))
	require.Len(t, templates, 6) // four processes, the migration and the drain
	return templates, objects
}

// configured returns the ConfigMap's values, of the base and the overlays.
func configured(t *testing.T) map[string]string {
	t.Helper()
	values := make(map[string]string)
	for _, pattern := range []string{"k8s/base/kustomization.yaml", "k8s/overlays/*/kustomization.yaml"} {
		paths, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, path := range paths {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			var k struct {
				Generator []struct{ Literals []string } `yaml:"configMapGenerator"`
			}
			require.NoError(t, yaml.Unmarshal(text, &k))
			for _, g := range k.Generator {
				for _, literal := range g.Literals {
					name, value, _ := strings.Cut(literal, "=")
					values[name] = value
				}
			}
		}
	}
	return values
}

func TestManifestsSetOnlyVariablesThatExist(t *testing.T) {
	t.Parallel()
	values := configured(t)
	_, err := config.FromMap(values)
	require.NoError(t, err)
	known := map[string]bool{"GOMEMLIMIT": true}
	for _, v := range config.Variables() {
		known[v.Name] = true
	}
	for name := range values {
		require.True(t, known[name], name)
	}
	templates, _ := pods(t)
	for _, pod := range templates {
		for _, c := range pod.Spec.Containers {
			for _, e := range c.Env {
				require.True(t, known[e.Name], e.Name)
				if e.Value == "" {
					require.Equal(t, e.Name, e.ValueFrom.Secret.Key, "the Secret has the names of the variables")
				}
			}
		}
	}
}

func TestManifestsFitTheProgram(t *testing.T) {
	t.Parallel()
	dockerfile, err := os.ReadFile("../Dockerfile")
	require.NoError(t, err)
	require.Contains(t, string(dockerfile), `ENTRYPOINT ["/afterwrite"]`, "so the manifests have args and no command")
	user := regexp.MustCompile(`USER (\d+):`).FindSubmatch(dockerfile)
	values := configured(t)
	templates, objects := pods(t)
	for _, pod := range templates {
		require.True(t, pod.Spec.Security.NonRoot)
		require.Equal(t, string(user[1]), strconv.Itoa(pod.Spec.Security.User))
		for _, c := range pod.Spec.Containers {
			require.Equal(t, "afterwrite", c.Image)
			require.Empty(t, c.Command)
			for _, e := range c.Env {
				if e.Name == "GOMEMLIMIT" {
					require.Less(t, 10*number(t, e.Value), 9*number(t, c.Resources.Limits.Memory), "%s: the rest is for what is not Go's", c.Name)
				}
			}
			port, serves := ports[c.Name]
			if !serves {
				require.Contains(t, []string{"migrate", "worker"}, c.Args[0])
				continue
			}
			require.Equal(t, []string{c.Name}, c.Args)
			require.Equal(t, port, c.Ports[0].Port)
			require.Equal(t, "0.0.0.0:"+strconv.Itoa(port), values["AFTERWRITE_"+strings.ToUpper(c.Name)+"_ADDR"])
			for want, p := range map[string][]probe{"/healthz": {c.Startup, c.Liveness}, "/readyz": {c.Readiness}} {
				for _, p := range p {
					require.Equal(t, want, p.HTTPGet.Path)
					require.Equal(t, c.Ports[0].Name, p.HTTPGet.Port)
					require.Greater(t, p.Timeout, 2, "/readyz waits up to 2 s for Redis")
				}
			}
			delay := time.Duration(0)
			if c.Name == "api" {
				delay, err = time.ParseDuration(values["AFTERWRITE_SHUTDOWN_DELAY"])
				require.NoError(t, err)
				notReady := time.Duration(c.Readiness.Failure*c.Readiness.Period) * time.Second
				require.Greater(t, delay, notReady, "it serves until it is out of the Service")
			}
			require.Greater(t, time.Duration(pod.Spec.Grace)*time.Second, delay+stopsWithin, c.Name)
		}
	}
	for _, o := range objects {
		if o.Kind == "Service" {
			require.Equal(t, ports[strings.TrimPrefix(o.Metadata.Name, "afterwrite-")], o.Spec.Ports[0].Port)
			require.Equal(t, "http", o.Spec.Ports[0].TargetPort)
		}
		for _, trigger := range o.Spec.Triggers {
			// internal/command tests that every process exports the metrics that the alerts use.
			name := regexp.MustCompile(`afterwrite_\w+`).FindString(trigger.Metadata.Query)
			alerts, err := os.ReadFile("prometheus/alerts.yml")
			require.NoError(t, err)
			require.Contains(t, string(alerts), name)
		}
	}
}

// number reads an amount of memory, such as 512Mi or 440MiB.
func number(t *testing.T, amount string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimRight(amount, "MiB"))
	require.NoError(t, err)
	return n
}

func TestUnitsFitTheProgram(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("systemd/*.service")
	require.NoError(t, err)
	require.Len(t, paths, 5)
	example, err := os.ReadFile("systemd/environment.example")
	require.NoError(t, err)
	values := make(map[string]string)
	for _, line := range regexp.MustCompile(`(?m)^(\w+)=(.*)$`).FindAllStringSubmatch(string(example), -1) {
		values[line[1]] = line[2]
	}
	c, err := config.FromMap(values)
	require.NoError(t, err)
	require.Empty(t, config.Unknown(values))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		sub := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "afterwrite-"), ".service")
		require.Contains(t, string(text), "ExecStart=/usr/local/bin/afterwrite "+strings.TrimSuffix(sub, "@")+"\n")
		stop := regexp.MustCompile(`TimeoutStopSec=(\d+)\n`).FindSubmatch(text)
		seconds, err := strconv.Atoi(string(stop[1]))
		require.NoError(t, err)
		delay := time.Duration(0)
		if sub == "api" {
			delay = c.ShutdownDelay
		}
		require.Greater(t, time.Duration(seconds)*time.Second, delay+stopsWithin, path)
	}
}
