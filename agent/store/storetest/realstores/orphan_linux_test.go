package realstores_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
)

// ownerDir is how the test binary is told to be an owner that will be killed.
const ownerDir = "CONSIGN_TEST_OWNER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerDir); dir != "" {
		os.Exit(own(dir))
	}
	os.Exit(m.Run())
}

// own starts a server, says where, and waits to be killed.
func own(dir string) int {
	ctx, cancel := context.WithTimeout(context.Background(), realstores.StartWithin)
	defer cancel()
	s, err := realstores.GoFakeS3(ctx, dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stdout, strings.TrimPrefix(s.Endpoint, "http://"))
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// TestServerDiesWithItsOwner checks that a killed test leaves no server behind.
func TestServerDiesWithItsOwner(t *testing.T) {
	t.Parallel()
	owner := exec.CommandContext(t.Context(), os.Args[0]) //nolint:gosec // this test again
	owner.Env = append(os.Environ(), ownerDir+"="+t.TempDir())
	owner.Stderr = os.Stderr
	in, err := owner.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr = strings.TrimSpace(addr)
	if !answers(t, addr) {
		t.Fatalf("nobody answers at %s", addr)
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait() // killed
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(20 * time.Second); answers(t, addr); {
		select {
		case <-late:
			t.Fatalf("the server at %s outlived its owner", addr)
		case <-tick.C:
		}
	}
}

func answers(t *testing.T, addr string) bool {
	t.Helper()
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		return false
	}
	c.Close()
	return true
}
