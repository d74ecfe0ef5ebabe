"""Lines as devices and people write them, in nine languages, by hand: what identifies a person stands in `{kind:…}`.

All names and numbers are made up.
"""

LINES = """
Confirmed by {name:Dr. John Smith} on {date:03/14/2019} at {time:10:22 AM}
Confirmed by: {name:SMITH MD, JOHN} ({id:123456}) on {date:3/4/2015} {time:10:12:33 AM}
Electronically signed by {name:Mary O'Brien MD}
Reviewed by {name:Anne-Marie Dupont, MD} {date:12-MAR-2018}
Normal sinus rhythm. Confirmed by {name:Jones}. No change since {date:2017-05-06}.
CONFIRMED BY {name:MILLER, ANN}
interpreted by {name:dr smith}
Overread by {name:K. Patel}
Referred by: {name:Lee}
ST elevation, discussed with {name:Dr. Green} at {time:14:35}
Patient: {name:DOE, JANE} MRN: {id:00-12-34-56} DOB {date:1/2/1950}
Name: {name:Jane Doe}, sinus tachycardia rate 120
MRN {id:A1234567} Sinus bradycardia
Acc# {id:ECG20190012}
Technician: {name:Karen White}
Compared to ECG of {date:12 March 2018}, no significant change
When compared with ECG of {date:14-NOV-2011} {time:09:14}, QT has lengthened
compared with tracing of {date:12:9:91}, it is not significantly changed
Call {phone:+1 (555) 123-4567} for questions
Results phoned to ward, ext. 3, tel {phone:555-123-4567}
Pager: {phone:12345}
Please contact {email:j.smith@hospital.example.org}
SSN {id:123-45-6789}
Order {id:20191234567}
Seen with {name:Mr. Brown}, {date:January 5, 2020}
{name:Ms Taylor} complains of palpitations
Befundet von {name:Dr. med. Hans Müller} am {date:03.04.2018}
befundet von {name:dr. müller}
Unterschrieben: sinusrhythmus
Gez. {name:Prof. Dr. Schmidt-Weber}
Bestätigt durch {name:OA Dr. K. von der Heide}
Vidiert von {name:Huber}, {date:1.2.19}, {time:14:30 Uhr}
Pat.-ID {id:4711234} Sinusrhythmus, Linkstyp
Fall-Nr.: {id:F-2019-00123}, Vorhofflimmern
sr normales ekg ips-ekg vom {date:10.05.93}: vorhofflattern 2:1 bis 4:1
Vergleich mit Vorbefund vom {date:10.05.}: unverändert
EKG vom {date:3. Oktober 2019}, Linksschenkelblock
{name:Herr Schneider}, Z.n. Infarkt
{name:Frau Dr. Lehmann} telefonisch informiert, Tel.: {phone:030 1234567}
Arzt: {name:Weber}
Unterschrift: {name:M. Kaiser}
Validé par {name:Dr Jean Lefèvre} le {date:14/03/2019} à {time:10h22}
Interprété par {name:Mme Durand}
Médecin: {name:Dr Marie Curie-Joly}
ECG du {date:3 février 2020}, rythme sinusal
IPP {id:8001234567}, bloc de branche droit
Rappeler au {phone:01 42 34 56 78}
Confirmado por {name:Dra. María García López} {date:12/10/2020}
Firmado por: {name:Pérez}
ECG de {date:5 de enero de 2019}: ritmo sinusal
Refertato da {name:Dott. Mario Rossi} il {date:01/02/2021}
Medico: {name:Bianchi}
Ritmo sinusale, confrontato con {date:12 maggio 2017}
Laudado por {name:João da Silva}
Beoordeeld door {name:J. van den Berg}
Granskad av {name:Eva Lindström} {date:2018-03-04}
förändringar som inte fanns på ekg {date:910218}.
Personnummer {id:19121212-1212}
Bekræftet af {name:Søren Jensen}
Opisane przez {name:Jan Kowalski}
Sinus rhythm, rate 72, PR 160 ms, QRS 88 ms, QT/QTc 400/440, P-R-T axes 54 -30 61
PR 160 ms QTc 440 rate 72 V1-V3 axis -30°
72-year-old male, 84 years, age 45 y
Vent. rate 98 BPM, PR interval 204 ms, QRS duration 102 ms
Atrial flutter with 2:1 av block, 4:1 conduction
ST depression in V4, V5, V6 of 0.15 mV; ST elevation 1.5 mm in II, III, aVF
V1-3, v4,5,6. i,ii,v3-6 t wave inversion
Confirmed by Holter monitoring
Confirmed by echocardiography and history
bestätigt durch Echo, bestätigt durch Koronarangiographie
sinusrhythmus 4.46 unbestätigter bericht
av-block 1. grades, av-block II, Typ Mobitz 2
Wolff-Parkinson-White, Sokolow-Lyon 3.8 mV, Cornell 2.9 mV
ant. sept. infarct, sept 2 leads, may be inferior infarct, 3 may be normal
digoxinspiegel: 0,62 (0,5-2), hf von 140 auf 128, 75 (10 watt)
10 mm/mV 25 mm/s 0.05-150 Hz 50 Hz F60
qrs 0.12 s, pq 0,20 s, qt 0,38; st-senkung 0,1-0,2 mV in v4-6
infarkt 1987, zustand nach bypass 2003
SVES 3/min, VES >5/min, 98/min.
tp: 12 of 15 beats, 3x1, 1x1/2, score 2-1-1
Premature ventricular complexes, 12 lead ECG, 500 samples
Read by computer; not confirmed by physician
Dr block? no. Right bundle branch block
lm stenosis 70-80%, EF 35-40 %
Rythme sinusal à 72/min, PR 160 ms, QRS 90 ms, axe -30°
Ritmo sinusal 80 lpm, PR 0,16 s, eje 45 grados
Sinusrytm 65/min, el-axel 30 grader, PQ 180 ms
Frequenza 75 bpm, QTc 420 ms, asse 60°
pH 7.40, K 4.1, troponin 1250; Amiodaron i.v. Bolus 300 mg, mobile telemetry 24 h
Patient has a pacemaker, rate 60-70, threshold 1.25 V
EKG: SR 75/min, LT, PQ 160 ms, QRS 100 ms, keine ERBS
12.5 mm, 3.5 mV, 1.2.3 not a date? no: heading 1.2.3
I II III aVR aVL aVF V1 V2 V3 V4 V5 V6 25.4 100.0
""".strip().splitlines()

# Written after the rules, and never used to change them: what is measured on these is what to expect.
HELD_OUT = """
ECG read by {name:Thomas Becker}, {date:06-11-2021}, {time:08:15}
{name:R. Chen}, MD has reviewed this ECG
This tracing was over-read by {name:Priya Natarajan} MD on {date:Feb 3, 2020}
Confirmed by {name:WILLIAMS-JONES, PATRICIA} ({id:5521}) on {date:9/30/2014} {time:4:05:12 PM}
Previous ECG: {date:2019/12/24} {time:18:30}
Compared to prior from {date:June 2nd 2016}: new T wave inversion
attending {name:O. Haugen} notified
Physician: {name:Unger, Felix}
Patient's name: {name:Lopez Maria}
Medical record number: {id:88-1234-5}
Visit # {id:V000123}
NHS number {id:943 476 5919}
Phone {phone:(0161) 496 0000}
fax {phone:+44 20 7946 0958}
mail {email:ekg@praxis-beispiel.de}
Prof. {name:Baumgartner}: VHF mit schneller Überleitung
Auswertung durch {name:Dr. A. Stein}, {date:24.12.2020}
Der Befund wurde von {name:Dr. Keller} freigegeben
Voraufnahme {date:07.08.2015}, keine Änderung
EKG v. {date:3.2.17} unverändert
Pat. {name:Hofmann}, {date:12.05.1948}, Sinusrhythmus
Krankenversicherten-Nr. {id:A123456789}
Rückruf {phone:0711/123456}
Oberärztin: {name:Schulz}
Revu par {name:Claire Fontaine}
Docteur {name:Moreau}: tracé normal
tracé du {date:1er mars 2018} à {time:9h05}
Patiente née le {date:07/11/1962}
Nº historia {id:456789}
Valorado por {name:Dr. Ruiz}
ECG previo del {date:15-03-2016}
Paziente: {name:Rossi Anna}, nata il {date:3/9/1955}
Tracciato del {date:28 febbraio 2019}
Gezien door {name:dr. Jansen}
ECG van {date:14 maart 2017}
Tolkat av {name:Karl Berg}, läkare
jämfört med {date:2014-10-02}
Godkendt af {name:Mette Nielsen} {date:03.06.2019} kl. {time:13.45}
Lekarz: {name:Anna Nowak}
Vurdert av {name:lege Hansen}
Heart rate 145, QRS axis 102, nonspecific T wave abnormality
HR 63 PR 148 QRSD 86 QT 412 QTc 422 --AXIS-- P 52 QRS 41 T 38
SINUS RHYTHM WITH 1ST DEGREE AV BLOCK, RATE 55
Low voltage in frontal leads (< 0.5 mV), R/S ratio 1.2 in V2
Sinusrhythmus 68/min, Indifferenztyp, PQ 0,18 s, QRS 0,09 s, QTc 412 ms
Schenkelblock, Z.n. Vorderwandinfarkt 1999, unter Amiodaron 200 mg
Rythme régulier 88/min, ESV isolées, QRS fins 80 ms
Ritmo sinusal a 75 lpm, bloqueo AV 2:1 intermitente
Lead V3 misplaced; leads II-III noisy; 50 Hz, 25 mm/s, 10 mm/mV
Paced rhythm, DDD 60/130, AV delay 180/150 ms
Marked ST elevation V1 to V4, 3.5 mm; call code STEMI
Interpretation made without knowing patient's gender/age
Consider right ventricular involvement in acute inferior infarct
Edit: NORM 100, (ISCIL)
""".strip().splitlines()
