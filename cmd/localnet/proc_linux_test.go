package localnet

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
)

// TestPeakIsNotTheParents checks that a small child of a large process is not taken for large, as its resource usage says.
func TestPeakIsNotTheParents(t *testing.T) {
	t.Parallel()
	const ballast = 64 << 20
	large := make([]byte, ballast)
	for i := range large {
		large[i] = byte(i)
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child := livePeak(cmd.Process.Pid)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if own := livePeak(os.Getpid()); child <= 0 || child >= ballast || own < ballast {
		t.Errorf("peaks: got %d of the child and %d of ours, want the child's below %d and ours above", child, own, ballast)
	}
	if n := livePeak(-1); n != 0 {
		t.Errorf("the peak of no process: got %d, want 0", n)
	}
	runtime.KeepAlive(large)
}
