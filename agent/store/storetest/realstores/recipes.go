package realstores

import (
	"fmt"
	"os"
	"path/filepath"
)

// Names of the programs, as Find takes them.
const (
	versitygw = "versitygw"
	rclone    = "rclone"
	gofakes3  = "gofakes3"
	fakeGCS   = "fake-gcs-server"
	azurite   = "azurite"
	stepCA    = "step-ca"
)

// A Recipe says how one program is installed.
type Recipe struct {
	Name    string
	Version string // exact, as its tool writes it
	Tool    Tool
	Package string // what the tool installs, without the version
	Program string // path of the program below the folder of the installation
}

// A Tool is what installs a program.
type Tool string

// The tools.
const (
	Go  Tool = "go"  // go install, without cgo
	NPM Tool = "npm" // npm install, into a node_modules of its own
)

// Recipes returns all programs that the servers of this package are, those
// that are made fastest first.
func Recipes() []Recipe {
	return []Recipe{
		{gofakes3, "v1.2.0", Go, "github.com/johannesboyne/gofakes3/cmd/gofakes3", gofakes3},
		{fakeGCS, "v1.56.1", Go, "github.com/fsouza/fake-gcs-server", fakeGCS},
		{azurite, "3.37.0", NPM, "azurite", "node_modules/azurite/dist/src/blob/main.js"},
		{stepCA, "v0.30.2", Go, "github.com/smallstep/certificates/cmd/step-ca", stepCA},
		{versitygw, "v1.8.0", Go, "github.com/versity/versitygw/cmd/versitygw", versitygw},
		{rclone, "v1.76.0", Go, "github.com/rclone/rclone", rclone},
	}
}

// Dir returns the folder that the program is installed in: below the user's cache
// directory, by name and version. It is there only when it is complete.
func (r Recipe) Dir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("locating the installation of %s: %w", r.Name, err)
	}
	return filepath.Join(cache, "consign", "servers", r.Name+"-"+r.Version), nil
}

// Installed returns the path of the program. If it is not there, the error is
// an fs.ErrNotExist.
func (r Recipe) Installed() (string, error) {
	dir, err := r.Dir()
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, filepath.FromSlash(r.Program))
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("finding %s %s: %w", r.Name, r.Version, err)
	}
	return program, nil
}

// Find returns the path of a program by the name of its recipe. If it is not
// installed, the error says what to do.
func Find(name string) (string, error) {
	for _, r := range Recipes() {
		if r.Name != name {
			continue
		}
		program, err := r.Installed()
		if err != nil {
			return "", fmt.Errorf("%w: run `make servers`", err)
		}
		return program, nil
	}
	return "", fmt.Errorf("there is no recipe for a program %q", name)
}
