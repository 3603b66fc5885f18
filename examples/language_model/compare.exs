# Holds the greedy tokens of models, and what they are loaded from, against mlx-lm's:
#
#     pip install mlx==0.32.2 mlx-cpu==0.32.2 mlx-lm
#     mix run examples/language_model/compare.exs [--python python3]
#
# mlx-lm saves each model to a folder, dense or quantized, which is loaded here.

Code.require_file("../decoder.exs", __DIR__)
{opts, []} = OptionParser.parse!(System.argv(), strict: [python: :string])
Nx.default_backend({Mlx.Backend, device: :cpu})

cases = Path.expand("../../test/fixtures/language_models.json", __DIR__)
folder = Path.join(System.tmp_dir!(), "mlx_lm_#{System.unique_integer([:positive])}")
args = [Path.join(__DIR__, "reference.py"), cases, "--folders", folder]
{output, 0} = System.cmd(opts[:python] || "python3", args)
expected = output |> String.split("\n", trim: true) |> List.last() |> JSON.decode!()

same =
  for {language_model, expected} <- Enum.zip(JSON.decode!(File.read!(cases)), expected) do
    %{"name" => name, "prompt" => prompt, "length" => length} = language_model
    {config, params} = Decoder.read(Path.join(folder, name), device: :cpu)

    generator =
      Decoder.generator(config, params, defn_options: [compiler: Mlx.Compiler, device: :cpu])

    %{tokens: tokens} = Mlx.Generation.generate(generator, prompt, max_tokens: length)
    alike = tokens |> Enum.zip(expected) |> Enum.take_while(fn {a, b} -> a == b end) |> length()
    IO.puts("#{name}: #{alike} of #{length} tokens are the same")
    tokens == expected
  end

File.rm_rf!(folder)
if not Enum.all?(same), do: System.halt(1)
