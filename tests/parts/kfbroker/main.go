// kfbroker is the light broker of the tests: franz-go's kfake as a process, with its faults on an HTTP port.
//
//	kfbroker -port 29092 [-admin 29190] [-brokers 3] [-data-dir DIR] [-c key=value]...
//
// It prints its bootstrap addresses on one line once it answers, and ends on SIGTERM or when its stdin closes.
//
//	POST /fault?key=Fetch&err=NOT_LEADER_FOR_PARTITION&count=3[&topic=][&partition=][&group=][&txn=][&node=][&top=1]
//	POST /sleep?key=Fetch&ms=500&count=3     answers late
//	POST /clear                              forgets all faults
//	POST /move?topic=&partition=&node=       moves a partition's leader
//	POST /compact, POST /retention           does at once what a broker does now and then
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

type pairs []string

func (p *pairs) String() string         { return strings.Join(*p, ",") }
func (p *pairs) Set(value string) error { *p = append(*p, value); return nil }

func main() {
	port := flag.Int("port", 0, "first port: broker i listens on port+i (0: any)")
	brokers := flag.Int("brokers", 1, "number of brokers")
	dataDir := flag.String("data-dir", "", "keep state here, so that a restart finds it")
	admin := flag.Int("admin", 0, "port of the HTTP control")
	stdin := flag.Bool("until-stdin-closes", false, "end with the process that holds the other end of stdin")
	var configs pairs
	flag.Var(&configs, "c", "broker configuration key=value")
	flag.Parse()

	ports := make([]int, *brokers)
	for i := range ports {
		if *port != 0 {
			ports[i] = *port + i
		}
	}
	config := map[string]string{}
	for _, pair := range configs {
		key, value, _ := strings.Cut(pair, "=")
		config[key] = value
	}
	options := []kfake.Opt{
		kfake.NumBrokers(*brokers),
		kfake.Ports(ports...),
		kfake.BrokerConfigs(config),
		kfake.WithLogger(kfake.BasicLogger(os.Stderr, kfake.LogLevelError)),
	}
	if *dataDir != "" {
		options = append(options, kfake.DataDir(*dataDir))
	}
	cluster, err := kfake.NewCluster(options...)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kfbroker:", err)
		os.Exit(1)
	}
	if *admin != 0 {
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(*admin)))
		if err != nil {
			fmt.Fprintln(os.Stderr, "kfbroker:", err)
			os.Exit(1)
		}
		go http.Serve(listener, newControl(cluster))
	}
	fmt.Println(strings.Join(cluster.ListenAddrs(), ","))

	ended := make(chan os.Signal, 2)
	signal.Notify(ended, os.Interrupt, syscall.SIGTERM)
	if *stdin {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			ended <- os.Interrupt
		}()
	}
	<-ended
	cluster.Close()
}

// control injects faults into a cluster.
type control struct {
	cluster *kfake.Cluster
	keys    map[string]kmsg.Key
	errors  map[string]*kerr.Error
	mutex   sync.Mutex
	faults  []*kfake.FaultHandle
}

func newControl(cluster *kfake.Cluster) http.Handler {
	c := &control{cluster: cluster, keys: map[string]kmsg.Key{}, errors: map[string]*kerr.Error{}}
	for key := int16(0); key <= kmsg.MaxKey; key++ {
		c.keys[kmsg.NameForKey(key)] = kmsg.Key(key)
	}
	for code := int16(-1); code < 200; code++ {
		if err := kerr.TypedErrorForCode(code); err != nil {
			c.errors[err.Message] = err
		}
	}
	mux := http.NewServeMux()
	handle := func(path string, do func(*http.Request) error) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			if err := do(r); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			fmt.Fprintln(w, "ok")
		})
	}
	handle("/fault", c.fault)
	handle("/sleep", c.sleep)
	handle("/clear", func(*http.Request) error {
		c.mutex.Lock()
		defer c.mutex.Unlock()
		for _, fault := range c.faults {
			fault.Remove()
		}
		c.faults = nil
		return nil
	})
	handle("/move", func(r *http.Request) error {
		topic, partition, node := r.FormValue("topic"), number(r, "partition", 0), number(r, "node", 0)
		return cluster.MoveTopicPartition(topic, int32(partition), int32(node))
	})
	handle("/compact", func(*http.Request) error { cluster.Compact(); return nil })
	handle("/retention", func(*http.Request) error { cluster.ApplyRetention(); return nil })
	return mux
}

func number(r *http.Request, key string, otherwise int) int {
	if n, err := strconv.Atoi(r.FormValue(key)); err == nil {
		return n
	}
	return otherwise
}

func (c *control) fault(r *http.Request) error {
	fault := kfake.Fault{
		Topic:    r.FormValue("topic"),
		Group:    r.FormValue("group"),
		TxnID:    r.FormValue("txn"),
		TopLevel: r.FormValue("top") == "1",
		Count:    number(r, "count", 1),
		Err:      c.errors[r.FormValue("err")],
	}
	if fault.Err == nil {
		return fmt.Errorf("unknown err %q", r.FormValue("err"))
	}
	if name := r.FormValue("key"); name != "" {
		key, known := c.keys[name]
		if !known {
			return fmt.Errorf("unknown key %q", name)
		}
		fault.Keys = []kmsg.Key{key}
	}
	if partition := number(r, "partition", -1); partition >= 0 {
		fault.Partitions = []int32{int32(partition)}
	}
	if node := number(r, "node", -1); node >= 0 {
		fault.Nodes = []int32{int32(node)}
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.faults = append(c.faults, c.cluster.Fault(fault))
	return nil
}

func (c *control) sleep(r *http.Request) error {
	key, known := c.keys[r.FormValue("key")]
	if !known {
		return fmt.Errorf("unknown key %q", r.FormValue("key"))
	}
	var left atomic.Int64
	left.Store(int64(number(r, "count", 1)))
	pause := time.Duration(number(r, "ms", 100)) * time.Millisecond
	c.cluster.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
		if left.Add(-1) > 0 {
			c.cluster.KeepControl()
		}
		c.cluster.SleepControl(func() { time.Sleep(pause) })
		return nil, nil, false
	})
	return nil
}
