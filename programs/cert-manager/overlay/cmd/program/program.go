// Package program has what the three mains share. Upstream's own mains are modules of their own that module mirrors do not
// serve; these start the same controllers with the flags that upstream's chart gives them, and upstream's defaults otherwise.
package program

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/pflag"
	logsapi "k8s.io/component-base/logs/api/v1"

	cmdutil "github.com/cert-manager/cert-manager/internal/cmd/util"
	"github.com/cert-manager/cert-manager/pkg/logs"
)

// Main reads the command line and runs a program until it fails or a signal ends it.
func Main(name string, flags *pflag.FlagSet, logging *logsapi.LoggingConfiguration, run func(context.Context) error) {
	ctx, exit := cmdutil.SetupExitHandler(context.Background(), cmdutil.GracefulShutdown)
	defer exit() // also sets the exit code
	logs.InitLogs()
	defer logs.FlushLogs()
	logs.AddFlags(logging, flags)
	err := flags.Parse(os.Args[1:])
	if err == nil {
		err = logs.ValidateAndApply(logging)
	}
	if err == nil {
		err = run(logs.NewContext(ctx, logs.Log, name))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		cmdutil.SetExitCode(err)
	}
}

// Must is for what cannot fail unless the build is wrong.
func Must(err error) {
	if err != nil {
		panic(err)
	}
}
