defmodule Mlx.BackendDocumentationTest do
  @moduledoc """
  The examples of the guides, and that the guides leave nothing out.
  """

  use ExUnit.Case, async: true

  alias Mlx.{DocExamples, TestDevice}

  @guides Path.wildcard("guides/backend_documentation/*.md")

  setup do
    Nx.default_backend(Mlx.Backend)
    :ok
  end

  for guide <- @guides do
    @external_resource guide
    examples = DocExamples.in_text(File.read!(guide))

    if TestDevice.exact?() or
         not Enum.any?(examples, &(DocExamples.floats?(&1) or DocExamples.f64?(&1))) do
      doctest_file(guide)
    else
      for %{number: number} = example <- examples do
        test "example #{number} of #{guide}" do
          example = unquote(Macro.escape(example))
          refused = DocExamples.f64?(example) and not TestDevice.f64?()
          ulps = if TestDevice.device() == :gpu, do: 4, else: 0
          DocExamples.check(example, refused: refused, ulps: ulps)
        end
      end
    end
  end

  @text Enum.map_join(@guides, &File.read!/1)

  # What is between backticks.
  @named Regex.scan(~r/`(?:c:)?([\w.]+?)(?:\/(\d+))?`/, @text, capture: :all_but_first)

  @names Enum.map(@named, &hd/1)

  for {name, arity} <- Nx.Backend.behaviour_info(:callbacks) do
    test "the callback #{name}/#{arity}" do
      assert Enum.any?(names(unquote(name)), &(&1 in @names))
    end
  end

  {:ok, modules} = :application.get_key(:nx, :modules)

  for module <- modules, match?(["Nx", "Block" | _], Module.split(module)) do
    test "the block #{inspect(module)}" do
      assert inspect(unquote(module)) in @names
    end
  end

  for [name, arity] <- Enum.uniq(@named), name =~ "." do
    test "there is #{name}/#{arity}" do
      [function | module] = unquote(name) |> String.split(".") |> Enum.reverse()
      module = module |> Enum.reverse() |> Module.concat() |> Code.ensure_loaded!()
      signature = {String.to_atom(function), unquote(String.to_integer(arity))}
      assert signature in (module.module_info(:exports) ++ callbacks(module))
    end
  end

  test "each guide is in the index and in the documentation" do
    index = File.read!("guides/backend_documentation/index.md")
    extras = Enum.map(Mix.Project.config()[:docs][:extras], &extra/1)

    for guide <- @guides do
      name = Path.basename(guide, ".md")
      assert guide in extras
      assert name == "index" or index =~ "(#{name}.md)"
    end
  end

  defp extra({file, _options}), do: Atom.to_string(file)
  defp extra(file), do: file

  # Some callbacks are not behind a function of that name.
  defp names(:inspect), do: ["inspect"]
  defp names(:triangular_solve), do: ["Nx.LinAlg.triangular_solve"]
  defp names(name), do: ["Nx.#{name}", "Nx.Backend.#{name}"]

  defp callbacks(module) do
    if function_exported?(module, :behaviour_info, 1),
      do: module.behaviour_info(:callbacks),
      else: []
  end
end
