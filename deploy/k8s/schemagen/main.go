// Schemagen writes the JSON schemas of the Kubernetes objects that deploy/k8s uses, from the Go types of their APIs. Run it with "make
// k8s-schemas" after a change of a version in go.mod, or to add a kind. It is a module of its own, so that afterwrite does not depend
// on Kubernetes.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/invopop/jsonschema"
	keda "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	prometheus "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// kinds are the objects, with their API versions.
var kinds = []struct {
	version string
	object  any
}{
	{"v1", core.ConfigMap{}}, {"v1", core.Service{}}, {"v1", core.ServiceAccount{}},
	{"apps/v1", apps.Deployment{}}, {"batch/v1", batch.Job{}}, {"batch/v1", batch.CronJob{}},
	{"networking.k8s.io/v1", networking.NetworkPolicy{}}, {"policy/v1", policy.PodDisruptionBudget{}},
	{"monitoring.coreos.com/v1", prometheus.ServiceMonitor{}},
	{"keda.sh/v1alpha1", keda.ScaledObject{}},
}

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: schemagen FOLDER"))
	}
	for _, k := range kinds {
		if err := write(os.Args[1], k.version, k.object); err != nil {
			fail(err)
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "schemagen:", err)
	os.Exit(1)
}

// write writes a schema to the file where kubeconform looks for it: kind-group-version.json in lower case.
func write(dir, version string, object any) error {
	kind := reflect.TypeOf(object).Name()
	reflector := &jsonschema.Reflector{Anonymous: true, ExpandedStruct: true, Mapper: special}
	schema := reflector.Reflect(object)
	schema.Version, schema.Title, schema.Required = "", kind, []string{"apiVersion", "kind", "metadata"}
	schema.Properties.Set("apiVersion", &jsonschema.Schema{Const: version})
	schema.Properties.Set("kind", &jsonschema.Schema{Const: kind})
	if _, found := schema.Properties.Get("spec"); found {
		schema.Required = append(schema.Required, "spec")
	}
	schema.Properties.Delete("status") // the cluster writes it
	text, err := json.MarshalIndent(schema, "", " ")
	if err != nil {
		return err
	}
	group, number, found := strings.Cut(version, "/")
	name := strings.ToLower(kind) + "-" + strings.Split(group, ".")[0]
	if found {
		name += "-" + number
	}
	return os.WriteFile(filepath.Join(dir, name+".json"), append(text, '\n'), 0o644)
}

// special returns the schemas of types with a JSON form of their own.
func special(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[resource.Quantity]():
		return either("string", "number")
	case reflect.TypeFor[intstr.IntOrString]():
		return either("string", "integer")
	case reflect.TypeFor[meta.Time](), reflect.TypeFor[meta.MicroTime](), reflect.TypeFor[meta.Duration]():
		return &jsonschema.Schema{Type: "string"}
	case reflect.TypeFor[meta.FieldsV1]():
		return &jsonschema.Schema{Type: "object"}
	}
	return nil
}

func either(a, b string) *jsonschema.Schema {
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: a}, {Type: b}}}
}
