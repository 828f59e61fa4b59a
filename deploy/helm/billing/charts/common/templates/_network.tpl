{{- /* A copy of deploy/helm/common, made by npm run test:deploy -- --vendor. Do not edit. */ -}}
{{- define "trifold.ingress" -}}
{{- $root := .root -}}
{{- $name := include "trifold.fullname" $root -}}
{{- $values := $root.Values -}}
{{- $path := .path -}}
{{- $base := $values.ingress.basePath | trimSuffix "/" -}}
{{- $paths := list (printf "/%s" $path) -}}
{{- range .extraPaths -}}{{- $paths = append $paths . -}}{{- end -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{ $name }}
  labels: {{- include "trifold.labels" $root | nindent 4 }}
  annotations:
    # Longer than a service can take: its request timeout plus a caller's `Prefer: wait` of up to 30 s.
    nginx.ingress.kubernetes.io/proxy-read-timeout: '75'
    nginx.ingress.kubernetes.io/proxy-body-size: 16m
    {{- with $values.ingress.annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  ingressClassName: {{ $values.ingress.className }}
  {{- with $values.ingress.tlsSecret }}
  tls:
    - { hosts: [{{ $values.ingress.host | quote }}], secretName: {{ . }} }
  {{- end }}
  rules:
    - host: {{ $values.ingress.host | quote }}
      http:
        paths:
          {{- range $prefix := (list "" $base | uniq) }}
          {{- range $paths }}
          - path: {{ $prefix }}{{ . }}
            pathType: Prefix
            backend: { service: { name: {{ $name }}, port: { name: http } } }
          {{- end }}
          {{- end }}
{{- end -}}

{{- define "trifold.networkPolicy" -}}
{{- $root := .root -}}
{{- $name := include "trifold.fullname" $root -}}
{{- $values := $root.Values -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $name }}
  labels: {{- include "trifold.labels" $root | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "trifold.selector" $root | nindent 6 }}
      app.kubernetes.io/component: service
  policyTypes: [Ingress, Egress]
  ingress:
    - from:
        - podSelector: { matchLabels: { app.kubernetes.io/part-of: trifold } }
        {{- range $values.networkPolicy.fromNamespaces }}
        - namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: {{ . }} } }
        {{- end }}
      ports:
        - { protocol: TCP, port: 8000 }
  egress:
    {{- include "trifold.dnsEgress" . | nindent 4 }}
    {{- if .calls }}
    - to:
        - podSelector:
            matchLabels:
              app.kubernetes.io/part-of: trifold
              app.kubernetes.io/component: service
      ports:
        - { protocol: TCP, port: 8000 }
    {{- end }}
    {{- if $values.database.internal }}
    - to:
        - podSelector:
            matchLabels:
              {{- include "trifold.selector" $root | nindent 14 }}
              app.kubernetes.io/component: database
      ports:
        - { protocol: TCP, port: 5432 }
    {{- else }}
    - ports:
        - { protocol: TCP, port: {{ $values.database.port }} }
    {{- end }}
    {{- if $values.kafka.internal }}
    - to:
        - podSelector: { matchLabels: { app.kubernetes.io/part-of: trifold, app.kubernetes.io/component: broker } }
      ports:
        - { protocol: TCP, port: 9092 }
    {{- else }}
    - ports:
        {{- range splitList "," $values.kafka.brokers }}
        - { protocol: TCP, port: {{ splitList ":" (trim .) | last | atoi }} }
        {{- end }}
    {{- end }}
    {{- with $values.networkPolicy.extraEgress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
