// cert-manager-cainjector writes authorities into webhook configurations, API services and CRDs.
package main

import (
	"context"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubernetes "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	config "github.com/cert-manager/cert-manager/internal/apis/config/cainjector"
	"github.com/cert-manager/cert-manager/internal/apis/config/cainjector/scheme"
	"github.com/cert-manager/cert-manager/pkg/apis/config/cainjector/v1alpha1"
	certmanager "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned/scheme"
	"github.com/cert-manager/cert-manager/pkg/controller/cainjector"
	"github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/cert-manager/cert-manager/pkg/util"

	"github.com/cert-manager/cert-manager/cmd/program"
)

func main() {
	settings := defaults()
	election := &settings.LeaderElectionConfig
	flags := pflag.NewFlagSet("cert-manager-cainjector", pflag.ContinueOnError)
	flags.StringVar(&settings.Namespace, "namespace", settings.Namespace, "the only namespace to look at")
	flags.StringVar(&settings.MetricsListenAddress, "metrics-listen-address", settings.MetricsListenAddress, "address of the metrics")
	flags.StringVar(&election.Namespace, "leader-election-namespace", election.Namespace, "where the lease is")
	flags.DurationVar(&election.LeaseDuration, "leader-election-lease-duration", election.LeaseDuration, "length of the lease")
	flags.DurationVar(&election.RenewDeadline, "leader-election-renew-deadline", election.RenewDeadline, "time to renew it in")
	flags.DurationVar(&election.RetryPeriod, "leader-election-retry-period", election.RetryPeriod, "time between tries")
	program.Main("cainjector", flags, &settings.Logging, func(ctx context.Context) error { return run(ctx, settings) })
}

func defaults() *config.CAInjectorConfiguration {
	known, _, err := scheme.NewSchemeAndCodecs()
	program.Must(err)
	documented, settings := &v1alpha1.CAInjectorConfiguration{}, &config.CAInjectorConfiguration{}
	known.Default(documented)
	program.Must(known.Convert(documented, settings, nil))
	return settings
}

func run(ctx context.Context, settings *config.CAInjectorConfiguration) error {
	ctrl.SetLogger(logs.FromContext(ctx))
	manager, err := newManager(settings)
	if err != nil {
		return err
	}
	targets := settings.EnableInjectableConfig
	err = cainjector.RegisterAllInjectors(ctx, manager, cainjector.SetupOptions{
		Namespace:                    settings.Namespace,
		EnableCertificatesDataSource: settings.EnableDataSourceConfig.Certificates,
		EnabledReconcilersFor: map[string]bool{
			cainjector.MutatingWebhookConfigurationName:   targets.MutatingWebhookConfigurations,
			cainjector.ValidatingWebhookConfigurationName: targets.ValidatingWebhookConfigurations,
			cainjector.CustomResourceDefinitionName:       targets.CustomResourceDefinitions,
			cainjector.APIServiceName:                     targets.APIServices,
		},
	})
	if err != nil {
		return err
	}
	return manager.Start(ctx)
}

func newManager(settings *config.CAInjectorConfiguration) (ctrl.Manager, error) {
	rest, err := ctrl.GetConfig()
	if err != nil {
		return nil, err
	}
	objects := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		kubernetes.AddToScheme, certmanager.AddToScheme, apiextensions.AddToScheme, apiregistration.AddToScheme,
	} {
		program.Must(add(objects))
	}
	election := settings.LeaderElectionConfig
	return ctrl.NewManager(util.RestConfigWithUserAgent(rest, "cainjector"), ctrl.Options{
		Scheme:  objects,
		Cache:   cache.Options{ReaderFailOnMissingInformer: true},
		Client:  client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
		Metrics: server.Options{BindAddress: settings.MetricsListenAddress},

		LeaderElection:                election.Enabled,
		LeaderElectionID:              "cert-manager-cainjector-leader-election",
		LeaderElectionNamespace:       election.Namespace,
		LeaderElectionResourceLock:    resourcelock.LeasesResourceLock,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &election.LeaseDuration,
		RenewDeadline:                 &election.RenewDeadline,
		RetryPeriod:                   &election.RetryPeriod,
	})
}
