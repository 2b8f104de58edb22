// Package localnet is a small Consign network of real processes on this
// machine: certificate authorities, brokers, agents and the configuration of a
// subscriber, all below one directory and on loopback. The demo, the end to end
// tests and the campaigns are written on it.
//
// It guarantees that everything it starts is ended by Close, by process id and nothing
// else, and that nothing is written outside its directory but what the
// exported folders receive. It knows the daemons only by their command line and
// configuration files, as an operator does.
package localnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/consign-transfer/consign/token"
)

// A Net is one network. Its methods may be called concurrently once the
// parties have been added.
type Net struct {
	Dir    string // everything is below; made by New, removed by nobody but its owner
	Binary string // the consign program

	mu          sync.Mutex // guards what follows
	authorities map[token.Provider]authority
	procs       []*Proc
}

// New prepares a network in dir, an existing folder, that runs binary.
func New(dir, binary string) (*Net, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("locating the network's folder: %w", err)
	}
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("locating the program: %w", err)
	}
	return &Net{Dir: dir, Binary: binary, authorities: map[token.Provider]authority{}}, nil
}

// Close ends every process that is still running, the last started first, and waits for
// them. It is idempotent.
func (n *Net) Close() error {
	n.mu.Lock()
	procs := append([]*Proc(nil), n.procs...)
	n.mu.Unlock()
	var errs []error
	for i := len(procs) - 1; i >= 0; i-- {
		errs = append(errs, procs[i].Stop())
	}
	return errors.Join(errs...)
}

// AddBroker makes a broker in a trust domain of its own, with a fresh
// authority, and returns its process, not yet started. Providers must have been added before.
func (n *Net) AddBroker(ctx context.Context, domain token.Provider, opts ...Setting) (*Broker, error) {
	providers := n.providers()
	if err := n.AddProvider(domain); err != nil {
		return nil, err
	}
	dir := filepath.Join(n.Dir, "brokers", string(domain))
	id := token.NewIdentity(domain, token.Broker, "main")
	pair, err := n.issue(id, dir)
	if err != nil {
		return nil, err
	}
	listen, admin, err := freeTCP2()
	if err != nil {
		return nil, err
	}
	b := &Broker{ID: id, URL: "https://" + listen, Cert: pair["cert"], Key: pair["key"]}
	conf := merge(map[string]any{
		"identity":  pair,
		"trust":     n.Trust(),
		"providers": providers,
		"listen":    listen,
		"admin":     admin,
		"state":     filepath.Join(dir, "state"),
	}, opts)
	file := filepath.Join(dir, "broker.yaml")
	if err := writeYAML(file, conf); err != nil {
		return nil, err
	}
	if _, err := n.Run(ctx, "", "broker", "init", "--config", file); err != nil {
		return nil, fmt.Errorf("preparing broker %s: %w", domain, err)
	}
	b.Proc = n.proc("broker-"+string(domain), admin, "broker", "--config", file)
	return b, nil
}

// A Broker is one broker of a Net.
type Broker struct {
	*Proc
	ID   token.Identity
	URL  string // of its API
	Cert string // file of its certificate chain
	Key  string // file of its private key
}

// An Export is a folder, or something else that can store, which an agent serves as a container.
type Export struct {
	Container token.Container
	Dir       string
	Store     Store // instead of Dir
	Read      bool
	Create    bool
	Unsafe    bool // allow_unsafe_store
}

// A Store is what the configuration of an export says of an object store. The zero value is none.
type Store struct {
	Kind     string // the setting's name: s3, azure or gcs
	Settings map[string]any
}

func (e Export) settings() map[string]any {
	m := map[string]any{"container": string(e.Container), "read": e.Read, "create": e.Create}
	if e.Store.Kind != "" {
		m[e.Store.Kind] = e.Store.Settings
	} else {
		m["dir"] = e.Dir
	}
	if e.Unsafe {
		m["allow_unsafe_store"] = true
	}
	return m
}

// An Agent is one agent of a Net.
type Agent struct {
	*Proc
	ID     token.Identity
	Listen string // host:port over UDP
	Cert   string // file of its certificate chain
	Key    string // file of its private key
	State  string // folder of its journals
	Config string // file of its configuration
}

// AddAgent makes an agent of provider that listens to the given brokers, and
// returns its process, not yet started.
func (n *Net) AddAgent(provider token.Provider, name string, exports []Export, brokers []*Broker, opts ...Setting) (*Agent, error) {
	dir := filepath.Join(n.Dir, "agents", string(provider)+"-"+name)
	id := token.NewIdentity(provider, token.Agent, name)
	pair, err := n.issue(id, dir)
	if err != nil {
		return nil, err
	}
	listen, err := freeUDP()
	if err != nil {
		return nil, err
	}
	admin, err := freeTCP()
	if err != nil {
		return nil, err
	}
	a := &Agent{ID: id, Listen: listen, Cert: pair["cert"], Key: pair["key"], State: filepath.Join(dir, "state")}
	var exported, asked []map[string]any
	for _, e := range exports {
		exported = append(exported, e.settings())
	}
	for _, b := range brokers {
		asked = append(asked, map[string]any{"id": string(b.ID), "url": b.URL})
	}
	conf := merge(map[string]any{
		"identity": pair,
		"trust":    n.Trust(),
		"brokers":  asked,
		"listen":   listen,
		"dial":     map[string]any{"allow": []string{"127.0.0.0/8"}},
		"exports":  exported,
		"state":    a.State,
		"admin":    admin,
	}, opts)
	file := filepath.Join(dir, "agent.yaml")
	if err := writeYAML(file, conf); err != nil {
		return nil, err
	}
	a.Config = file
	a.Proc = n.proc("agent-"+string(provider)+"-"+name, admin, "agent", "--config", file)
	return a, nil
}

// AddSubscriber makes a person with one account at each provider and returns
// the configuration file for the command line that talks to broker.
func (n *Net) AddSubscriber(name string, broker *Broker, providers ...token.Provider) (string, error) {
	accounts, err := n.Account(name, providers...)
	if err != nil {
		return "", err
	}
	file := filepath.Join(n.Dir, "subscribers", name, "at-"+string(broker.ID.Provider())+".yaml")
	return file, writeYAML(file, map[string]any{
		"broker":   map[string]any{"id": string(broker.ID), "url": broker.URL},
		"trust":    n.Trust(),
		"accounts": accounts,
	})
}

// A Setting changes one top-level key of a daemon's configuration.
type Setting struct {
	Key   string
	Value any
}

func merge(conf map[string]any, opts []Setting) map[string]any {
	for _, o := range opts {
		conf[o.Key] = o.Value
	}
	return conf
}

func freeTCP() (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func freeTCP2() (first, second string, err error) {
	if first, err = freeTCP(); err != nil {
		return "", "", err
	}
	second, err = freeTCP()
	return first, second, err
}

func freeUDP() (string, error) {
	var lc net.ListenConfig
	c, err := lc.ListenPacket(context.Background(), "udp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	defer c.Close()
	return c.LocalAddr().String(), nil
}
