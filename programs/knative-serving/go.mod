module inferencebox.local/programs/knative-serving

go 1.24.0

require knative.dev/serving v0.45.1 // indirect
