module inferencebox.local/programs/istio

go 1.24.0

require istio.io/istio v0.0.0-20250616142415-455f269485ea

// the pseudo-versions upstream names are on no module mirror; the released tags of the same line are
replace (
	istio.io/api => istio.io/api v1.26.2
	istio.io/client-go => istio.io/client-go v1.26.2
)
