defmodule Mlx.Doctor.Nif do
  @moduledoc false

  import Mlx.Doctor, only: [ok: 2, error: 3]
  alias Mlx.Doctor.Host

  # The loader tells the reason only in the log.
  @filter __MODULE__

  def loaded?, do: :erlang.module_loaded(Mlx.Native)

  def check do
    with :ok <- survive(), :ok <- load() do
      ok("NIF", "loads, with #{length(Mlx.Native.op_table())} operations")
    else
      {:error, reason} ->
        error("NIF", "can't be loaded: #{reason}", """
        see the errors above, if any, and run `mix deps.compile mlx --force`; devices, \
        computations and the BLAS are not checked\
        """)
    end
  end

  # A damaged library may end the VM, so another one tries first.
  defp survive do
    load = "code:ensure_loaded('Elixir.Mlx.Native'), halt(0)."
    paths = for path <- :code.get_path(), folder = to_string(path), folder != ".", do: folder
    args = boot() ++ ["-noinput", "-pa" | paths] ++ ["-eval", load]

    with false <- loaded?(),
         erl when erl != nil <- erl(),
         {_, status} when status != 0 <- Host.run(erl, args) do
      {:error, "a VM that tries to load it ends with status #{inspect(status)}"}
    else
      _ -> :ok
    end
  end

  # A release has a boot file of its own for a VM without the application.
  defp boot do
    with {:ok, [[boot] | _]} <- :init.get_argument(:boot),
         clean = Path.join(Path.dirname(boot), "start_clean"),
         true <- File.exists?(clean <> ".boot") do
      ["-boot", clean | boot_variables()]
    else
      _ -> []
    end
  end

  defp boot_variables do
    case :init.get_argument(:boot_var) do
      {:ok, pairs} ->
        Enum.flat_map(pairs, &["-boot_var" | Enum.map(&1, fn part -> "#{part}" end)])

      :error ->
        []
    end
  end

  # A release has it beside the emulator.
  defp erl do
    root = to_string(:code.root_dir())

    places = [
      Path.join(root, "bin/erl"),
      Path.join(root, "erts-#{:erlang.system_info(:version)}/bin/erl")
    ]

    Enum.find(places, &File.exists?/1)
  end

  defp load do
    tag = make_ref()
    :ok = :logger.add_primary_filter(@filter, {&note/2, {self(), tag}})

    case Code.ensure_loaded(Mlx.Native) do
      {:module, _} -> :ok
      {:error, reason} -> {:error, reason(tag, reason)}
    end
  after
    :logger.remove_primary_filter(@filter)
  end

  @doc false
  def note(%{msg: message} = event, {pid, tag}) do
    text = text(message)

    if text =~ "Mlx.Native" do
      send(pid, {tag, text})
      :stop
    else
      event
    end
  end

  defp text({:string, text}), do: IO.chardata_to_string(text)
  defp text({:report, report}), do: inspect(report, limit: :infinity, printable_limit: :infinity)
  defp text({format, args}), do: format |> :io_lib.format(args) |> IO.chardata_to_string()

  defp reason(tag, reason) do
    receive do
      {^tag, text} -> text |> String.replace(~r/\s+/, " ") |> of_loader()
    after
      1000 -> inspect(reason)
    end
  end

  defp of_loader(text) do
    case Regex.run(~r/Failed to load NIF library:? '?(.*?)'?"/, text) do
      [_, reason] -> String.replace(reason, ": '", ": ")
      nil -> text
    end
  end
end
