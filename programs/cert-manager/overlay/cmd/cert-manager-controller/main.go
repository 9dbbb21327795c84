// cert-manager-controller issues certificates.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/utils/clock"

	config "github.com/cert-manager/cert-manager/internal/apis/config/controller"
	"github.com/cert-manager/cert-manager/internal/apis/config/controller/scheme"
	enabled "github.com/cert-manager/cert-manager/internal/apis/config/controller/v1alpha1"
	"github.com/cert-manager/cert-manager/pkg/acme/accounts"
	"github.com/cert-manager/cert-manager/pkg/apis/config/controller/v1alpha1"
	"github.com/cert-manager/cert-manager/pkg/controller"
	"github.com/cert-manager/cert-manager/pkg/healthz"
	"github.com/cert-manager/cert-manager/pkg/issuer/acme/dns/util"
	"github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/cert-manager/cert-manager/pkg/metrics"

	// each registers its issuer; without one, an Issuer of that kind never becomes Ready
	_ "github.com/cert-manager/cert-manager/pkg/issuer/acme"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/vault"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/venafi"

	"github.com/cert-manager/cert-manager/cmd/program"
)

func main() {
	settings := defaults()
	election, shim := &settings.LeaderElectionConfig, &settings.IngressShimConfig
	flags := pflag.NewFlagSet("cert-manager-controller", pflag.ContinueOnError)
	flags.StringVar(&settings.ClusterResourceNamespace, "cluster-resource-namespace", settings.ClusterResourceNamespace, "where Secrets of ClusterIssuers are")
	flags.StringVar(&election.Namespace, "leader-election-namespace", election.Namespace, "where the lease is")
	flags.DurationVar(&election.LeaseDuration, "leader-election-lease-duration", election.LeaseDuration, "length of the lease")
	flags.DurationVar(&election.RenewDeadline, "leader-election-renew-deadline", election.RenewDeadline, "time to renew it in")
	flags.DurationVar(&election.RetryPeriod, "leader-election-retry-period", election.RetryPeriod, "time between tries")
	flags.StringVar(&settings.ACMEHTTP01Config.SolverImage, "acme-http01-solver-image", settings.ACMEHTTP01Config.SolverImage, "image of the solver")
	flags.IntVar(&settings.MaxConcurrentChallenges, "max-concurrent-challenges", settings.MaxConcurrentChallenges, "challenges at once")
	flags.StringVar(&shim.DefaultIssuerName, "default-issuer-name", shim.DefaultIssuerName, "issuer of an Ingress that names none")
	flags.StringVar(&shim.DefaultIssuerKind, "default-issuer-kind", shim.DefaultIssuerKind, "its kind")
	flags.StringVar(&shim.DefaultIssuerGroup, "default-issuer-group", shim.DefaultIssuerGroup, "its group")
	program.Main("controller", flags, &settings.Logging, func(ctx context.Context) error { return run(ctx, settings) })
}

func defaults() *config.ControllerConfiguration {
	known, _, err := scheme.NewSchemeAndCodecs()
	program.Must(err)
	documented, settings := &v1alpha1.ControllerConfiguration{}, &config.ControllerConfiguration{}
	known.Default(documented)
	program.Must(known.Convert(documented, settings, nil))
	return settings
}

func run(ctx context.Context, settings *config.ControllerConfiguration) error {
	group, ctx := errgroup.WithContext(ctx)
	factory, err := controller.NewContextFactory(ctx, options(ctx, settings))
	if err != nil {
		return err
	}
	root, err := factory.Build()
	if err != nil {
		return err
	}
	health := healthz.NewServer(settings.LeaderElectionConfig.HealthzTimeout)
	if err := serve(ctx, group, root, health, settings); err != nil {
		return err
	}
	leading := make(chan struct{})
	if err := elect(ctx, group, factory, health, settings, leading); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return group.Wait()
	case <-leading:
	}
	if err := startControllers(ctx, group, factory, settings); err != nil {
		return err
	}
	root.SharedInformerFactory.Start(ctx.Done())
	root.KubeSharedInformerFactory.Start(ctx.Done())
	root.HTTP01ResourceMetadataInformersFactory.Start(ctx.Done())
	return group.Wait()
}

func options(ctx context.Context, settings *config.ControllerConfiguration) controller.ContextOptions {
	http01, dns01, shim := settings.ACMEHTTP01Config, settings.ACMEDNS01Config, settings.IngressShimConfig
	nameservers := dns01.RecursiveNameservers
	if len(nameservers) == 0 {
		nameservers = util.RecursiveNameservers
	}
	return controller.ContextOptions{
		APIServerHost:      settings.APIServerHost,
		Kubeconfig:         settings.KubeConfig,
		KubernetesAPIQPS:   settings.KubernetesAPIQPS,
		KubernetesAPIBurst: settings.KubernetesAPIBurst,
		Namespace:          settings.Namespace,
		Clock:              clock.RealClock{},
		Metrics:            metrics.New(logs.FromContext(ctx), clock.RealClock{}),
		IssuerOptions: controller.IssuerOptions{
			ClusterResourceNamespace:        settings.ClusterResourceNamespace,
			ClusterIssuerAmbientCredentials: settings.ClusterIssuerAmbientCredentials,
			IssuerAmbientCredentials:        settings.IssuerAmbientCredentials,
		},
		ACMEOptions: controller.ACMEOptions{
			HTTP01SolverImage:                 http01.SolverImage,
			HTTP01SolverResourceRequestCPU:    resource.MustParse(http01.SolverResourceRequestCPU),
			HTTP01SolverResourceRequestMemory: resource.MustParse(http01.SolverResourceRequestMemory),
			HTTP01SolverResourceLimitsCPU:     resource.MustParse(http01.SolverResourceLimitsCPU),
			HTTP01SolverResourceLimitsMemory:  resource.MustParse(http01.SolverResourceLimitsMemory),
			ACMEHTTP01SolverRunAsNonRoot:      http01.SolverRunAsNonRoot,
			HTTP01SolverNameservers:           http01.SolverNameservers,
			DNS01Nameservers:                  nameservers,
			DNS01CheckAuthoritative:           !dns01.RecursiveNameserversOnly,
			DNS01CheckRetryPeriod:             dns01.CheckRetryPeriod,
			AccountRegistry:                   accounts.NewDefaultRegistry(),
		},
		IngressShimOptions: controller.IngressShimOptions{
			DefaultIssuerName:                 shim.DefaultIssuerName,
			DefaultIssuerKind:                 shim.DefaultIssuerKind,
			DefaultIssuerGroup:                shim.DefaultIssuerGroup,
			DefaultAutoCertificateAnnotations: shim.DefaultAutoCertificateAnnotations,
			ExtraCertificateAnnotations:       shim.ExtraCertificateAnnotations,
		},
		CertificateOptions: controller.CertificateOptions{
			EnableOwnerRef:           settings.EnableCertificateOwnerRef,
			CopiedAnnotationPrefixes: settings.CopiedAnnotationPrefixes,
		},
		SchedulerOptions: controller.SchedulerOptions{MaxConcurrentChallenges: settings.MaxConcurrentChallenges},
		ConfigOptions:    controller.ConfigOptions{EnableGatewayAPI: settings.EnableGatewayAPI},
	}
}

// serve answers for metrics and health.
func serve(ctx context.Context, group *errgroup.Group, root *controller.Context, health *healthz.Server, settings *config.ControllerConfiguration) error {
	measured, err := net.Listen("tcp", settings.MetricsListenAddress)
	if err != nil {
		return err
	}
	asked, err := net.Listen("tcp", settings.HealthzListenAddress)
	if err != nil {
		return err
	}
	server := root.Metrics.NewServer(measured)
	group.Go(func() error {
		if err := server.Serve(measured); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error { <-ctx.Done(); return server.Close() })
	group.Go(func() error { return health.Start(ctx, asked) })
	return nil
}

// elect closes leading once this process is the only one that acts.
func elect(ctx context.Context, group *errgroup.Group, factory *controller.ContextFactory, health *healthz.Server, settings *config.ControllerConfiguration, leading chan<- struct{}) error {
	clients, err := factory.Build("leader-election")
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	election := settings.LeaderElectionConfig
	lock, err := resourcelock.New(
		resourcelock.LeasesResourceLock, election.Namespace, "cert-manager-controller", clients.Client.CoreV1(), clients.Client.CoordinationV1(),
		resourcelock.ResourceLockConfig{Identity: host + "-external-cert-manager-controller", EventRecorder: clients.Recorder},
	)
	if err != nil {
		return err
	}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock:            lock,
		LeaseDuration:   election.LeaseDuration,
		RenewDeadline:   election.RenewDeadline,
		RetryPeriod:     election.RetryPeriod,
		ReleaseOnCancel: true,
		WatchDog:        health.LeaderHealthzAdaptor,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { close(leading) },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return err
	}
	group.Go(func() error {
		elector.Run(ctx)
		if ctx.Err() == nil {
			return errors.New("another process leads now")
		}
		return nil
	})
	return nil
}

func startControllers(ctx context.Context, group *errgroup.Group, factory *controller.ContextFactory, settings *config.ControllerConfiguration) error {
	for name, create := range controller.Known() {
		if !slices.Contains(enabled.DefaultEnabledControllers, name) {
			continue
		}
		one, err := create(factory)
		if err != nil {
			return fmt.Errorf("controller %s: %w", name, err)
		}
		group.Go(func() error { return one.Run(settings.NumberOfConcurrentWorkers, ctx) })
	}
	return nil
}
