package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token"
)

// TestDemo runs the demonstration small, as a process, and wants its proofs and that nothing is left.
func TestDemo(t *testing.T) {
	t.Parallel()
	from, tmp := t.TempDir(), t.TempDir()
	for _, name := range []string{"a", "b/c", "b/d/e"} {
		file := filepath.Join(from, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(strings.Repeat(name, 5000)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	binary, err := exec.LookPath("consign")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "demo", "--from", from, "--big", "48MiB")
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the demonstration: %v\n%s", err, out)
	}
	for _, want := range []string{
		"kill -9", "found: a capability", "both transfers are complete", "equal to the source", "the receipts verify",
		"(capability-spent)", "(capability-not-yours)",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the story does not say %q:\n%s", want, out)
		}
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) != 0 {
		t.Errorf("what is left: got %v, %v; want nothing", left, err)
	}
}

// TestCompareTreesFindsADifference checks that the demonstration's proof can fail.
func TestCompareTreesFindsADifference(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(source, dst string, claimed map[string]token.Digest){
		"other content": func(_, dst string, _ map[string]token.Digest) { writeFile(t, dst, "x", "other") },
		"missing":       func(_, dst string, _ map[string]token.Digest) { remove(t, dst, "x") },
		"too many":      func(_, dst string, _ map[string]token.Digest) { writeFile(t, dst, "z", "more") },
		"other digest":  func(_, _ string, claimed map[string]token.Digest) { claimed["x"] = claimed["y"] },
		"no digest":     func(_, _ string, claimed map[string]token.Digest) { delete(claimed, "x") },
		"nothing":       nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, dst, claimed := t.TempDir(), t.TempDir(), map[string]token.Digest{}
			for _, f := range []string{"x", "y"} {
				writeFile(t, source, f, "content of "+f)
				writeFile(t, dst, f, "content of "+f)
				d, _, err := digestOf(filepath.Join(source, f))
				if err != nil {
					t.Fatal(err)
				}
				claimed[f] = d
			}
			if spoil != nil {
				spoil(source, dst, claimed)
			}
			if _, err := compareTrees(t.Context(), source, dst, claimed); (err != nil) != (spoil != nil) {
				t.Errorf("comparing: got %v, want a difference: %v", err, spoil != nil)
			}
		})
	}
}

func writeFile(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}
