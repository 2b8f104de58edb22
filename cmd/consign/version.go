package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// The linker sets these with -X; a plain build leaves what the toolchain knows.
var (
	version = "devel"
	commit  = ""
	date    = ""
)

// A versionInfo is what 'consign version' prints.
type versionInfo struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Date    string `json:"date,omitempty"`
	Go      string `json:"go"`
	QUIC    string `json:"quic_go,omitempty"`
	System  string `json:"system"`
}

func thisVersion() versionInfo {
	v := versionInfo{Version: version, Commit: commit, Date: date, Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, m := range info.Deps {
		if m.Path == "github.com/quic-go/quic-go" {
			v.QUIC = m.Version
		}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && v.Commit == "" {
			v.Commit = s.Value
		}
	}
	return v
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			v := thisVersion()
			if a.format != table {
				return a.printJSON(v)
			}
			return a.printPairs([][2]string{
				{"consign", v.Version}, {"commit", v.Commit}, {"date", v.Date}, {"go", v.Go}, {"quic-go", v.QUIC}, {"system", v.System},
			})
		},
	}
}
