module inferencebox.local/programs/kube-router

go 1.24

require github.com/cloudnativelabs/kube-router/v2 v2.0.0-00010101000000-000000000000

replace github.com/cloudnativelabs/kube-router/v2 => github.com/k3s-io/kube-router/v2 v2.6.3-k3s1
