defmodule Mlx.GuidesTest do
  @moduledoc """
  The examples of the guides.
  """

  use ExUnit.Case, async: true

  alias __MODULE__.Adapters
  alias Mlx.BumblebeeModels

  # Packages may be missing, and a guide has the module.
  @compile {:no_warn_undefined, [Adapters, Axon, Axon.Losses, Bumblebee]}
  @compile {:no_warn_undefined, Polaris.Optimizers}

  @guides Path.wildcard("guides/*.md")

  setup do
    Nx.default_backend(Mlx.Backend)
    :ok
  end

  # Guides whose blocks are one program, from the first to the last, and the package that some need.
  @programs [
    {"guides/bumblebee.md", :bumblebee},
    {"guides/compiling.md", nil},
    {"guides/fine_tuning.md", :axon},
    {"guides/language_models.md", nil},
    {"guides/serving.md", nil}
  ]

  for {guide, package} <- @programs do
    if package, do: @tag(package)
    @tag :capture_log
    test "#{guide} runs" do
      Mlx.Livebook.run(unquote(guide))
    end
  end

  for guide <- @guides do
    @external_resource guide
    if File.read!(guide) =~ "iex>", do: doctest_file(guide)

    test "#{guide} is in the documentation" do
      assert unquote(guide) in Mlx.MixProject.project()[:docs][:extras]
    end
  end

  @tag :bumblebee
  test "the adapters of guides/fine_tuning.md learn beside the layers of a model of Bumblebee's" do
    cells = Mlx.Livebook.cells(File.read!("guides/fine_tuning.md"))
    [%{code: code}] = for cell <- cells, cell.code =~ "defmodule Adapters", do: cell
    Code.eval_string(String.replace(code, "defmodule Adapters", "defmodule #{inspect(Adapters)}"))

    spec = BumblebeeModels.spec(:bert, architecture: :for_sequence_classification)
    {model, inputs} = {Bumblebee.build_model(spec), BumblebeeModels.inputs(:bert)}
    :rand.seed(:exsss, {1, 2, 3})
    state = BumblebeeModels.state(model, inputs)
    names = ["encoder.blocks.0.self_attention.query", "encoder.blocks.1.self_attention.value"]
    adapted = Adapters.insert(model, state, names, 4)
    adapters = Adapters.init(adapted, names, spec.__struct__.input_template(spec))
    assert map_size(adapters) == 4

    {start, _update} = optimizer = Polaris.Optimizers.adam(learning_rate: 0.05)
    wanted = Nx.tensor([[1, 0], [0, 1]])

    loss = fn wanted, outputs ->
      Axon.Losses.categorical_cross_entropy(wanted, outputs.logits,
        from_logits: true,
        reduction: :mean
      )
    end

    step = Nx.Defn.jit(Adapters.step(adapted, loss, optimizer), compiler: Mlx.Compiler)

    {losses, _learnt} =
      Enum.map_reduce(1..20, {adapters, start.(adapters)}, fn _, {adapters, optimizer} ->
        {adapters, optimizer, loss} = step.(adapters, optimizer, state, inputs, wanted)
        {Nx.to_number(loss), {adapters, optimizer}}
      end)

    assert List.last(losses) < 0.9 * hd(losses)
  end

  test "README.md says what each example prints" do
    readme = File.read!("README.md")
    examples = for path <- Path.wildcard("examples/*.exs"), run?(path), do: path
    assert length(examples) >= 5
    for path <- examples, do: assert(readme =~ ~r/`[^`]*mix run #{path}[^`]*`[^`]+```\n/, path)
  end

  # Others are parts of examples.
  defp run?(path), do: File.read!(path) =~ "mix run #{path}"

  # A sentence that ends with the name of a file, and a block after it.
  @quoted ~r/ In\s`([\w\/.]+)`:\n\n```\w+\n(.*?)^```$/ms

  test "what guides/contributing.md shows of the sources is there" do
    quotes = Regex.scan(@quoted, File.read!("guides/contributing.md"), capture: :all_but_first)
    assert length(quotes) >= 3

    for [path, code] <- quotes,
        do: assert(File.read!(path) =~ code, "#{path} is without\n#{code}")
  end
end
