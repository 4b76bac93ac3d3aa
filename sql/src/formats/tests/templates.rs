//! Lines of each format with holes in them: `«column:kind»`, and `⟨…⟩` around what is not in every line. See
//! [`super::made`] for the kinds.

pub(super) const TEMPLATES: &[(&str, &str)] = &[
    (
        "nginx_error",
        r#"«time:@%Y/%m/%d %H:%M:%S» [«level:error|warn|crit|notice»] «pid:int»#«tid:int»: ⟨*«connection:int» ⟩«message:free»⟨, client: «client:ip», server: «server:host»⟨, request: "«request:request»"⟩⟨, upstream: "«upstream:url»"⟩⟨, host: "«host:host»"⟩⟨, referrer: "«referrer:url»"⟩⟩"#,
    ),
    (
        "apache_error",
        "[«time:@%a %b %e %H:%M:%S.%6f %Y»] [⟨«module:word»:⟩«level:error|notice|warn»]⟨ [pid «pid:int»⟨:tid «tid:int»⟩]⟩⟨ «source:file»:⟩⟨ «os_error:(13)Permission denied|(2)No such file or directory»:⟩⟨ [client «client:ip»]⟩ ⟨«code:AH00037|AH02200»: ⟩«message:free»⟨, referer: «referer:url»⟩",
    ),
    (
        "access_vhost",
        r#"«vhost:host»⟨:«port:int»⟩ «host:ip» «ident:word?» «user:word?» [«time:@%d/%b/%Y:%H:%M:%S %z»] "«method:GET|POST» «path:path» «protocol:HTTP/1.1|HTTP/2.0»" «status:code» «bytes:int?»⟨ "«referer:url?»" "«user_agent:agent?»"⟩⟨ «request_time:float»⟩"#,
    ),
    (
        "access_forwarded",
        r#"«forwarded_for:ips» «host:ip» «ident:word?» «user:word?» [«time:@%d/%b/%Y:%H:%M:%S %z»] "«method:GET|POST» «path:path» «protocol:HTTP/1.1|HTTP/2.0»" «status:code» «bytes:int?»⟨ "«referer:url?»" "«user_agent:agent?»"⟩⟨ «request_time:float»⟩"#,
    ),
    (
        "access_us",
        r#"«host:ip» «ident:word?» «user:word?» [«time:@%d/%b/%Y:%H:%M:%S %z»] "«method:GET|POST» «path:path» «protocol:HTTP/1.1|HTTP/2.0»" «status:code» «bytes:int?»⟨ "«referer:url?»" "«user_agent:agent?»"⟩ «request_us:int»"#,
    ),
    (
        "access_s",
        r#"«host:ip» «ident:word?» «user:word?» [«time:@%d/%b/%Y:%H:%M:%S %z»] "«method:GET|POST» «path:path» «protocol:HTTP/1.1|HTTP/2.0»" «status:code» «bytes:int?»⟨ "«referer:url?»" "«user_agent:agent?»"⟩ «request_s:int»"#,
    ),
    (
        "nginx_main",
        r#"«host:ip» - «user:word?» [«time:@%d/%b/%Y:%H:%M:%S %z»] "«method:GET|POST» «path:path» «protocol:HTTP/1.1|HTTP/2.0»" «status:code» «bytes:int» "«referer:url?»" "«user_agent:agent?»" "«forwarded_for:ips?»"⟨ «request_time:float» "«upstream_time:float?»"⟩"#,
    ),
    (
        "ingress_nginx",
        r#"«host:ip» - «user:word?» [«time:@%d/%b/%Y:%H:%M:%S %z»] "«method:GET|POST» «path:path» «protocol:HTTP/1.1|HTTP/2.0»" «status:code» «bytes:int» "«referer:url?»" "«user_agent:agent?»" «request_length:int» «request_time:float» [«upstream_name:word?»] [«alternative_upstream_name:word?»] «upstream:ips?» «upstream_bytes:int?» «upstream_time:float?» «upstream_status:code?» «request_id:hex»"#,
    ),
    (
        "traefik_access",
        r#"«host:ip» - «user:word?» [«time:@%d/%b/%Y:%H:%M:%S %z»] "«method:GET|POST» «path:path» «protocol:HTTP/1.1|HTTP/2.0»" «status:code» «bytes:int» "«referer:url?»" "«user_agent:agent?»" «request:int» "«router:word?»" "«server:url?»" «duration_ms:int»ms"#,
    ),
    (
        "haproxy_http",
        r#"⟨Feb  6 12:14:14 box haproxy[«pid:int»]: ⟩«client:ip»:«client_port:int» [«time:@%d/%b/%Y:%H:%M:%S.%3f»] «frontend:word» «backend:word»/«server:word» «request_ms:signed»/«queue_ms:signed»/«connect_ms:signed»/«response_ms:signed»/«total_ms:int» «status:code» «bytes:int» «request_cookie:word?» «response_cookie:word?» «termination:----|PR--|CD--» «connections:int»/«frontend_connections:int»/«backend_connections:int»/«server_connections:int»/«retries:int» «server_queue:int»/«backend_queue:int»⟨ {«request_headers:host»}⟨ {«response_headers:word»}⟩⟩ "«method:GET|POST» «path:path» «protocol:HTTP/1.1»""#,
    ),
    (
        "haproxy_tcp",
        r#"⟨Feb  6 12:14:14 box haproxy[«pid:int»]: ⟩«client:ip»:«client_port:int» [«time:@%d/%b/%Y:%H:%M:%S.%3f»] «frontend:word» «backend:word»/«server:word» «queue_ms:signed»/«connect_ms:signed»/«total_ms:int» «bytes:int» «termination:--|SC|CD» «connections:int»/«frontend_connections:int»/«backend_connections:int»/«server_connections:int»/«retries:int» «server_queue:int»/«backend_queue:int»"#,
    ),
    (
        "aws_alb",
        r#"«type:http|https|h2» «time:@%Y-%m-%dT%H:%M:%S.%6fZ» «elb:word» «client:ip»:«client_port:int» «target:ip»:«target_port:int» «request_processing_time:float» «target_processing_time:float» «response_processing_time:float» «elb_status:code» «target_status:code?» «received_bytes:int» «sent_bytes:int» "«method:GET|POST» «url:url» «protocol:HTTP/1.1|HTTP/2.0»" "«user_agent:agent?»" «ssl_cipher:word?» «ssl_protocol:TLSv1.2|TLSv1.3» «target_group:word?» "«trace_id:word»" "«domain:host?»" "«certificate:word?»" «rule_priority:int?» «creation_time:@%Y-%m-%dT%H:%M:%S.%6fZ» "«actions:word?»" "«redirect_url:url?»" "«error_reason:word?»"⟨ "«targets:ip?»" "«target_statuses:code?»" "«classification:word?»" "«classification_reason:word?»"⟨ «connection_trace_id:word»⟩⟩"#,
    ),
    (
        "aws_elb",
        r#"«time:@%Y-%m-%dT%H:%M:%S.%6fZ» «elb:word» «client:ip»:«client_port:int» «backend:ip»:«backend_port:int» «request_processing_time:float» «backend_processing_time:float» «response_processing_time:float» «elb_status:code» «backend_status:code?» «received_bytes:int» «sent_bytes:int» "«method:GET|POST» «url:url» «protocol:HTTP/1.1|HTTP/2.0»" "«user_agent:agent?»" «ssl_cipher:word?» «ssl_protocol:TLSv1.2|TLSv1.3»"#,
    ),
    (
        "aws_s3",
        r#"«owner:hex» «bucket:word» [«time:@%d/%b/%Y:%H:%M:%S %z»] «remote_ip:ip?» «requester:word?» «request_id:hex» «operation:REST.GET.OBJECT|REST.PUT.PART» «key:path?» "«method:GET|PUT» «path:path» «protocol:HTTP/1.1»" «status:code» «error_code:word?» «bytes_sent:int?» «object_size:int?» «total_ms:int?» «turn_around_ms:int?» "«referer:url?»" "«user_agent:agent?»" «version_id:word?»⟨ «host_id:hex» «signature:word?» «cipher:word?» «authentication:word?» «host:host» «tls:TLSv1.2»⟩"#,
    ),
    (
        "cloudfront",
        "«time:@%Y-%m-%d\t%H:%M:%S»\t«x_edge_location:word»\t«sc_bytes:int»\t«c_ip:ip»\t«cs_method:GET|POST»\t«cs_host:host»\t«cs_uri_stem:path»\t«sc_status:code»\t«cs_user_agent:word?»\t«time_taken:float»",
    ),
    (
        "iis",
        "«time:@%Y-%m-%d %H:%M:%S» «s_ip:ip» «cs_method:GET|POST» «cs_uri_stem:path» «cs_uri_query:word?» «s_port:int» «cs_username:word?» «c_ip:ip» «cs_user_agent:word?» «cs_referer:url?» «sc_status:code» «sc_substatus:int» «sc_win32_status:int» «time_taken:int»",
    ),
    (
        "squid",
        "«time:@%s.%3f»     «elapsed_ms:int» «client:ip» «result:TCP_MISS|TCP_MEM_HIT»/«status:code» «bytes:int» «method:GET|CONNECT» «url:url» «user:word?» «hierarchy:HIER_DIRECT|HIER_NONE»/«peer:ip?» «content_type:word?»",
    ),
    (
        "envoy",
        r#"[«time:@%Y-%m-%dT%H:%M:%S.%3fZ»] "«method:GET|POST» «path:path» «protocol:HTTP/1.1|HTTP/2»" «status:code» «flags:UF|UH,NR»⟨ «details:via_upstream|route_not_found» «termination:word?» "«failure:word?»"⟩ «received_bytes:int» «sent_bytes:int» «duration_ms:int» «upstream_ms:int?» "«forwarded_for:ips?»" "«user_agent:agent?»" "«request_id:hex»" "«authority:host»" "«upstream:ip?»"⟨ «cluster:word» 127.0.0.1:41854 10.44.1.27:80 10.44.1.23:37652 x default⟩"#,
    ),
    (
        "uwsgi",
        "[pid: «pid:int»|app: «app:int»|req: «request:1/2|33/100»] «host:ip» («user:word?») {28 vars in «request_bytes:int» bytes} [«time:@%a %b %e %H:%M:%S %Y»] «method:GET|POST» «path:path» => generated «bytes:int» bytes in «took_ms:int» msecs («protocol:HTTP/1.1» «status:code») 2 headers in 80 bytes (1 switches on core 0)",
    ),
    (
        "journald",
        r#"{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"«time:@%s%6f»"⟨,"_TRANSPORT":"«transport:syslog|kernel|stdout»"⟩⟨,"PRIORITY":"«priority:int»"⟩⟨,"_UID":"«user_id:int»"⟩,"_HOSTNAME":"«host:word»"⟨,"SYSLOG_IDENTIFIER":"«app:word»"⟩⟨,"_PID":"«pid:int»"⟩⟨,"_COMM":"«command:word»"⟩⟨,"_SYSTEMD_UNIT":"«unit:host»"⟩,"MESSAGE":"«message:json»"}"#,
    ),
    (
        "docker",
        r#"{"log":"«message:json»\n","stream":"«stream:stdout|stderr»","time":"«time:@%Y-%m-%dT%H:%M:%S.%9fZ»"}"#,
    ),
    (
        "cri",
        "«time:@%Y-%m-%dT%H:%M:%S.%9f%:z» «stream:stdout|stderr» «tag:F|P» «message:free»",
    ),
    (
        "klog",
        "«level:I|W|E|F»«time:@%m%d %H:%M:%S.%6f» ⟨     ⟩«thread:int» «file:file_go»:«line:int»] «message:free»",
    ),
    (
        "glog",
        "«level:I|W|E|F»«time:@%Y%m%d %H:%M:%S.%6f» ⟨     ⟩«thread:int» «file:file_go»:«line:int»] «message:free»",
    ),
    (
        "zap",
        "«time:@%Y-%m-%dT%H:%M:%S.%3f%z»\t«level:INFO|ERROR|debug»\t⟨«logger:host»\t⟩⟨«caller:pkg/file.go:12|a/b.go:7»\t⟩«message:sentence»⟨\t«fields:{\"a\": 1}|{}»⟩",
    ),
    (
        "postgresql",
        "«time:@%Y-%m-%d %H:%M:%S.%3f UTC» [«pid:int»] ⟨«user:word»@«database:word» ⟩«level:LOG|ERROR|FATAL|STATEMENT|DETAIL»:  «message:duration»",
    ),
    (
        "pgbouncer",
        "«time:@%Y-%m-%d %H:%M:%S.%3f UTC» [«pid:int»] «level:LOG|WARNING|ERROR» ⟨«side:C|S»-«id:0x55d0a1|0x7f»: «database:word»/«user:word»@«address:ip» ⟩«message:free»",
    ),
    (
        "mysql_error",
        "«time:@%Y-%m-%dT%H:%M:%S.%6fZ» «thread:int» [«level:System|Warning|Note|ERROR»]⟨ [«code:MY-010116|MY-1»] [«subsystem:Server|InnoDB»]⟩ «message:free»",
    ),
    (
        "mysql_slow",
        "# Query_time: «query_time:float»  Lock_time: «lock_time:float» Rows_sent: «rows_sent:int»  Rows_examined: «rows_examined:int»",
    ),
    (
        "mongodb",
        r#"{"t":{"$date":"«time:@%Y-%m-%dT%H:%M:%S.%3f%:z»"},"s":"«level:I|W|E»",  "c":"«component:NETWORK|CONTROL»", "id":«id:int», "ctx":"«context:word»","msg":"«message:json»"⟨,"attr":«attributes:{"a":1}|{"b":"c"}»⟩}"#,
    ),
    (
        "redis",
        "«pid:int»:«role:M|S|C|X» «time:@%d %b %Y %H:%M:%S.%3f» «level:*|#|.» «message:free»",
    ),
    (
        "spring_boot",
        "«time:@%Y-%m-%dT%H:%M:%S.%3f%:z»  «level:INFO|WARN|ERROR» «pid:int» --- ⟨[«application:word»] ⟩[ ⟨   ⟩«thread:word»] ⟨[«trace:hex»] ⟩«logger:host»⟨      ⟩ : «message:free»",
    ),
    (
        "logback",
        "«time:@%Y-%m-%d %H:%M:%S.%3f» [«thread:word»] «level:INFO |WARN |ERROR» «logger:host»⟨ [«context:word»]⟩ - «message:free»",
    ),
    (
        "log4j",
        "«time:@%Y-%m-%d %H:%M:%S,%3f» «level:INFO|WARN|ERROR» ⟨[«thread:word»] ⟩«logger:host»: «message:free»",
    ),
    (
        "kafka",
        "[«time:@%Y-%m-%d %H:%M:%S,%3f»] «level:INFO|WARN|ERROR» «message:free» («logger:host»)",
    ),
    (
        "zookeeper",
        "«time:@%Y-%m-%d %H:%M:%S,%3f» [myid:«myid:int?»] - «level:INFO |WARN |ERROR» [«thread:word»:«class:word»@«line:int»] - «message:free»",
    ),
    (
        "cassandra",
        "«level:INFO |WARN |ERROR» [«thread:word»] «time:@%Y-%m-%d %H:%M:%S,%3f» «file:Storage.java|A.java»:«line:int» - «message:free»",
    ),
    (
        "elasticsearch",
        "[«time:@%Y-%m-%dT%H:%M:%S,%3f»][«level:INFO |WARN |ERROR»][«logger:host»⟨    ⟩] [«node:word»] ⟨[«index:word»]⟨[«shard:int»]⟩ ⟩«message:free»",
    ),
    (
        "wildfly",
        "«time:@%Y-%m-%d %H:%M:%S,%3f» «level:INFO |WARN |ERROR» [«logger:host»] («thread:sentence») «message:free»",
    ),
    (
        "catalina",
        "«time:@%d-%b-%Y %H:%M:%S.%3f» «level:INFO|WARNING|SEVERE» [«thread:word»] «source:host» «message:free»",
    ),
    (
        "python",
        "«time:@%Y-%m-%d %H:%M:%S,%3f» - «logger:host» - «level:INFO|WARNING|DEBUG» - «message:free»",
    ),
    (
        "python_basic",
        "«level:INFO|WARNING|DEBUG»:«logger:host»:«message:free»",
    ),
    (
        "celery",
        "[«time:@%Y-%m-%d %H:%M:%S,%3f»: «level:INFO|WARNING»/«process:MainProcess|ForkPoolWorker-1»] ⟨«task:host»[«task_id:84961386-6d84-929d-98bd-c5aee93b5c88»]: ⟩«message:free»",
    ),
    (
        "gunicorn",
        "[«time:@%Y-%m-%d %H:%M:%S %z»] [«pid:int»] [«level:INFO|ERROR»] «message:free»",
    ),
    (
        "openstack",
        "«time:@%Y-%m-%d %H:%M:%S.%3f» «pid:int» «level:INFO|WARNING|ERROR» «logger:host» ⟨[«request:req-1 a b|req-2»] ⟩«message:free»",
    ),
    (
        "ruby",
        "I, [«time:@%Y-%m-%dT%H:%M:%S.%6f» #«pid:int»]  «level:INFO|ERROR» -- «program:word?»: «message:free»",
    ),
    (
        "rust",
        "[«time:@%Y-%m-%dT%H:%M:%SZ» «level:INFO |ERROR» «module:app::server|hyper»] «message:free»",
    ),
    (
        "php_fpm",
        "[«time:@%d-%b-%Y %H:%M:%S»] «level:NOTICE|WARNING|ERROR»: ⟨[pool «pool:word»] ⟩⟨child «child:int» ⟩«message:free»",
    ),
    (
        "php_error",
        "[«time:@%d-%b-%Y %H:%M:%S UTC»] ⟨PHP «level:Warning|Fatal error|Notice»:  ⟩«message:free»⟨ in «file:/srv/x.php|/a/b.php» on line «line:int»⟩",
    ),
    (
        "dpkg",
        "«time:@%Y-%m-%d %H:%M:%S» «action:status» «state:installed|half-configured|unpacked» «package:word» «version:1.2-3|<none>»",
    ),
    (
        "fail2ban",
        "«time:@%Y-%m-%d %H:%M:%S,%3f» «component:fail2ban.actions|fail2ban.filter»        [«pid:int»]: «level:NOTICE|INFO» ⟨  ⟩[«jail:word»] «action:Ban|Unban|Found» «address:ip»⟨«message: - 2024-01-02| again»⟩",
    ),
    (
        "certbot",
        "«time:@%Y-%m-%d %H:%M:%S,%3f»:«level:INFO|DEBUG»:«logger:host»:«message:free»",
    ),
    (
        "cloud_init",
        "«time:@%Y-%m-%d %H:%M:%S,%3f» - «module:util.py|cc_mounts.py»[«level:DEBUG|WARNING»]: «message:free»",
    ),
    (
        "auditd",
        "⟨node=«node:word» ⟩type=«type:SYSCALL|CWD» msg=audit(«time:@%s.%3f»:«serial:int»): «message:free»",
    ),
    ("dmesg", "[    «uptime:float6»] «message:free»"),
    (
        "exim",
        "«time:@%Y-%m-%d %H:%M:%S» ⟨[«pid:int»] ⟩«id:1rKabc-000123-AB|1rKabd-000000001Fy-0ab9» ⟨«flag:<=|=>|**» «address:alice@example.test» ⟩«message:free»",
    ),
    (
        "bind",
        "«time:@%d-%b-%Y %H:%M:%S.%3f» «category:queries»: «level:info»: client @0x7f0c «client:ip»#«port:int» («name:host»): query: «query:host» «class:IN» «type:A|AAAA» «message:+E(0)K (10.0.0.1)|+»",
    ),
    (
        "rabbitmq",
        "«time:@%Y-%m-%d %H:%M:%S.%6f%:z» [«level:info|error»] <«process:0.222.0|0.1.0»> «message:free»",
    ),
    (
        "vsftpd",
        "«time:@%a %b %e %H:%M:%S %Y» [pid «pid:int»] ⟨[«user:word»] ⟩«message:OK LOGIN|CONNECT|FAIL DOWNLOAD»: Client \"«client:ip»\"⟨, «detail:free»⟩",
    ),
    (
        "xferlog",
        "«time:@%a %b %e %H:%M:%S %Y» «seconds:int» «host:ip» «bytes:int» «file:path» «type:a|b» «action:_|C» «direction:i|o» «access:r|a» «user:word» «service:ftp» «authentication:0|1» «authenticated_user:word?» «status:c|i»",
    ),
    (
        "libvirt",
        "«time:@%Y-%m-%d %H:%M:%S.%3f+0000»: «thread:int»: «level:error|info» : ⟨«function:word»:«line:int» : ⟩«message:free»",
    ),
    (
        "vmware",
        "«time:@%Y-%m-%dT%H:%M:%S.%3fZ» «level:info|warning» «app:hostd|vpxa»[«pid:int»] ⟨[Originator@6876 «origin:sub=a opID=b|sub=c»] ⟩«message:free»",
    ),
    (
        "zeek",
        "«ts:@%s.%6f»\t«uid:word»\t«id_orig_h:ip»\t«id_orig_p:int»\t«proto:udp|tcp»\t«duration:float?»",
    ),
];
