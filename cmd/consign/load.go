package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"github.com/consign-transfer/consign/token/problem"
)

// envPrefix begins the name of every variable that is a setting: broker.url is CONSIGN_BROKER_URL.
const envPrefix = "CONSIGN_"

// envConfig names the configuration file, as --config does.
const envConfig = envPrefix + "CONFIG"

// envProfile names the profile, as --profile does.
const envProfile = envPrefix + "PROFILE"

// systemConfig is the folder of configurations for all users of a machine.
const systemConfig = "/etc/consign"

// maxConfigSize bounds a configuration file, in bytes.
const maxConfigSize = 1 << 20

// A loading says where the settings of one command come from.
type loading struct {
	files   []string          // lowest precedence first; those that do not exist are passed over
	flags   *pflag.FlagSet    // may be nil
	flagKey map[string]string // name of a flag to the path of its setting
}

// A loaded configuration remembers where each value came from.
type loaded struct {
	files  []string // that were read
	origin map[string]string
}

// settings lists the effective values of cfg, the pointer that was loaded into.
func (l loaded) settings(cfg any) []setting {
	return effective(reflect.ValueOf(cfg).Elem(), "", l.origin)
}

// files returns the configuration files to read: the one that was named, which must exist, or those of
// the system and the user with that name.
func (a *app) files(name string) ([]string, error) {
	files, err := a.candidates(name)
	if err != nil {
		return nil, err
	}
	if len(files) == 1 && filepath.Dir(files[0]) != systemConfig {
		if _, err := os.Stat(files[0]); err != nil {
			return nil, problem.Wrap(err, problem.BadConfig, "The configuration file %s cannot be read", quoted(files[0]))
		}
	}
	return files, nil
}

// subscriberConfig is the name of the subscriber's configuration, which may come in several profiles.
const subscriberConfig = "config.yaml"

// profileOf returns which profile was chosen; empty is none.
func (a *app) profileOf() (string, error) {
	name := a.profile
	if name == "" && a.config == "" {
		name = a.getenv(envProfile)
	}
	switch {
	case name == "":
		return "", nil
	case a.config != "":
		return "", problem.New(problem.Usage, "--profile and --config both say which configuration to read; give one of them")
	case a.profile == "" && a.getenv(envConfig) != "":
		return "", problem.New(problem.BadConfig, "%s and %s are both set; unset one of them", envProfile, envConfig)
	case len(name) > 64 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "":
		return "", problem.New(problem.Usage, "The profile %s is not a name of letters, digits, - and _", quoted(name))
	}
	return name, nil
}

// candidates returns where a configuration may be, lowest precedence first, whether it is there or not.
func (a *app) candidates(name string) ([]string, error) {
	named := a.config
	if name == subscriberConfig {
		profile, err := a.profileOf()
		if err != nil {
			return nil, err
		}
		if profile != "" {
			name = filepath.Join("profiles", profile+".yaml")
		} else if named == "" {
			named = a.getenv(envConfig)
		}
	} else if named == "" {
		named = a.getenv(envConfig)
	}
	if named != "" {
		return []string{named}, nil
	}
	files := []string{filepath.Join(systemConfig, name)}
	dir := a.getenv("XDG_CONFIG_HOME")
	if dir == "" && a.getenv("HOME") != "" {
		dir = filepath.Join(a.getenv("HOME"), ".config")
	}
	if dir != "" {
		files = append(files, filepath.Join(dir, "consign", name))
	}
	return files, nil
}

// load fills the struct that cfg points to, which holds the defaults: files first, then the
// environment, then flags that were given. Every key must be a setting, must stand once and must be of its
// type; otherwise the error is problem.BadConfig and names the place and the nearest
// setting. Lists are replaced, not merged.
func (a *app) load(cfg any, from loading) (loaded, error) {
	sh := shapeOf(reflect.TypeOf(cfg).Elem())
	got := loaded{origin: map[string]string{}}
	k := koanf.New(keyMark)
	for _, name := range from.files {
		if st, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return got, problem.Wrap(err, problem.BadConfig, "The configuration file %s cannot be read", quoted(name))
		} else if st.Size() > maxConfigSize || !st.Mode().IsRegular() {
			return got, problem.New(problem.BadConfig, "The configuration file %s is not a file of at most %d bytes", quoted(name), maxConfigSize)
		}
		if err := k.Load(file.Provider(name), strictYAML{file: name, shape: sh, origin: got.origin}); err != nil {
			return got, asConfig(err, "The configuration file %s cannot be read", quoted(name))
		}
		got.files = append(got.files, name)
	}
	if err := a.loadEnv(k, sh, got.origin); err != nil {
		return got, err
	}
	if err := loadFlags(k, sh, from, got.origin); err != nil {
		return got, err
	}
	if err := k.UnmarshalWithConf("", cfg, koanf.UnmarshalConf{Tag: settingTag}); err != nil {
		return got, asConfig(err, "The configuration cannot be read")
	}
	return got, nil
}

// asConfig keeps a problem and wraps everything else as problem.BadConfig.
func asConfig(err error, format string, args ...any) error {
	var p *problem.Error
	if errors.As(err, &p) {
		return err
	}
	return problem.Wrap(err, problem.BadConfig, format, args...)
}

// loadEnv reads the variables that begin with envPrefix. One that is a setting of no command is refused.
func (a *app) loadEnv(k *koanf.Koanf, sh *shape, origin map[string]string) error {
	mine := variables(sh)
	var known []string
	for _, s := range []*shape{sh, shapeOf(reflect.TypeFor[cliConfig]()), shapeOf(reflect.TypeFor[brokerConfig]()), shapeOf(reflect.TypeFor[agentConfig]())} {
		for v := range variables(s) {
			known = append(known, v)
		}
	}
	var failure error
	err := k.Load(env.Provider(keyMark, env.Opt{
		Prefix:      envPrefix,
		EnvironFunc: func() []string { return a.environ },
		TransformFunc: func(name, text string) (string, any) {
			if text == "" { // as if it were not set
				return "", nil
			}
			path, ok := mine[name]
			if !ok {
				if name != envConfig && name != envProfile && !slices.Contains(known, name) && failure == nil {
					failure = unknownSetting("The environment", name, known)
				}
				return "", nil
			}
			value, err := sh.at(path).parse(text)
			if err != nil && failure == nil {
				failure = problem.New(problem.BadConfig, "The variable %s is not good: %s", name, sentenceOf(err))
			}
			origin[path] = "environment " + name
			return path, value
		},
	}), nil)
	if failure != nil {
		return failure
	}
	if err != nil {
		return asConfig(err, "The environment cannot be read")
	}
	return nil
}

// variables maps the name of each variable to the path of its setting.
func variables(sh *shape) map[string]string {
	out := map[string]string{}
	sh.scalars("", func(path string) {
		out[envPrefix+strings.ToUpper(strings.ReplaceAll(path, keyMark, "_"))] = path
	})
	return out
}

func loadFlags(k *koanf.Koanf, sh *shape, from loading, origin map[string]string) error {
	if from.flags == nil {
		return nil
	}
	var failure error
	err := k.Load(posflag.ProviderWithFlag(from.flags, keyMark, k, func(f *pflag.Flag) (string, any) {
		path, ok := from.flagKey[f.Name]
		if !ok || !f.Changed {
			return "", nil
		}
		value, err := sh.at(path).parse(f.Value.String())
		if err != nil && failure == nil {
			failure = problem.New(problem.Usage, "--%s is not good: %s", f.Name, sentenceOf(err))
		}
		origin[path] = "flag --" + f.Name
		return path, value
	}), nil)
	if failure != nil {
		return failure
	}
	if err != nil {
		return asConfig(err, "The flags cannot be read")
	}
	return nil
}

// sentenceOf is the text of an error for a sentence of ours.
func sentenceOf(err error) string {
	var p *problem.Error
	if errors.As(err, &p) {
		return p.Sentence()
	}
	return err.Error()
}

// unknownSetting says that there is no such setting, and which is nearest.
func unknownSetting(where, name string, known []string) error {
	if near := nearest(name, known); near != "" {
		return problem.New(problem.BadConfig, "%s: there is no setting %s; did you mean %q", where, quoted(name), near)
	}
	return problem.New(problem.BadConfig, "%s: there is no setting %s; there are %s", where, quoted(name), strings.Join(known, ", "))
}
