// cert-manager-webhook checks and converts cert-manager's objects.
package main

import (
	"context"

	"github.com/spf13/pflag"

	config "github.com/cert-manager/cert-manager/internal/apis/config/webhook"
	"github.com/cert-manager/cert-manager/internal/apis/config/webhook/scheme"
	"github.com/cert-manager/cert-manager/internal/webhook"
	"github.com/cert-manager/cert-manager/pkg/apis/config/webhook/v1alpha1"
	"github.com/cert-manager/cert-manager/pkg/logs"

	"github.com/cert-manager/cert-manager/cmd/program"
)

func main() {
	settings := defaults()
	authority := &settings.TLSConfig.Dynamic
	flags := pflag.NewFlagSet("cert-manager-webhook", pflag.ContinueOnError)
	flags.Int32Var(&settings.SecurePort, "secure-port", settings.SecurePort, "port of the webhook")
	flags.Int32Var(&settings.HealthzPort, "healthz-port", settings.HealthzPort, "port of the health check")
	flags.StringVar(&settings.MetricsListenAddress, "metrics-listen-address", settings.MetricsListenAddress, "address of the metrics")
	flags.StringVar(&authority.SecretNamespace, "dynamic-serving-ca-secret-namespace", "", "where its authority is kept")
	flags.StringVar(&authority.SecretName, "dynamic-serving-ca-secret-name", "", "Secret of its authority")
	flags.StringSliceVar(&authority.DNSNames, "dynamic-serving-dns-names", nil, "names of its certificate")
	program.Main("webhook", flags, &settings.Logging, func(ctx context.Context) error {
		server, err := webhook.NewCertManagerWebhookServer(logs.FromContext(ctx), *settings)
		if err != nil {
			return err
		}
		return server.Run(ctx)
	})
}

func defaults() *config.WebhookConfiguration {
	known, _, err := scheme.NewSchemeAndCodecs()
	program.Must(err)
	documented, settings := &v1alpha1.WebhookConfiguration{}, &config.WebhookConfiguration{}
	known.Default(documented)
	program.Must(known.Convert(documented, settings, nil))
	return settings
}
