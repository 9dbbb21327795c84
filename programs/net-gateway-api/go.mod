module inferencebox.local/programs/net-gateway-api

go 1.24.0

require knative.dev/net-gateway-api v0.45.0 // indirect
